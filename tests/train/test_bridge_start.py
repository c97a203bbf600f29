"""The least-squares start of the bridge shows the LLM what the CTC head hears."""

import pytest
import torch

from kikitori.data.speech import SpeechBatch
from kikitori.errors import ConfigError
from kikitori.model.bridge import StackBridge
from kikitori.train.bridge_start import fit_bridge_to_ctc
from tests.tiny import tiny_speech_llm


def _batches(count: int = 4) -> list[SpeechBatch]:
    generator = torch.Generator().manual_seed(5)
    lengths = torch.tensor([9000, 16000, 12345])
    return [
        SpeechBatch(("a", "b", "c"), torch.randn(3, 16000, generator=generator) * 0.1, lengths, ("", "", ""))
        for _ in range(count)
    ]


@pytest.mark.parametrize("stride", [1, 3])
def test_explains_what_a_linear_map_can_explain(stride):
    model = tiny_speech_llm(encoder="parakeet")
    model.bridge = StackBridge(model.bridge.dim, model.bridge.llm_dim, stride)
    batches = _batches()
    explained = fit_bridge_to_ctc(model, batches)
    assert 0.0 < explained <= 1.0

    # No small change of the solution explains more: the residual has its minimum here.
    acoustic, table = model.acoustic, model.llm.get_input_embeddings().weight
    encoded = [acoustic.encode(*acoustic.encoder.features(b.waveforms, b.lengths)) for b in batches]

    def residual() -> float:
        total = 0.0
        for item in encoded:
            probabilities = acoustic.log_probs(item)[0][..., :-1].exp()
            shown, lengths = model.bridge(item.frames, item.lengths)
            for row, length in enumerate(item.lengths.tolist()):
                heard = probabilities[row, :length] @ table[: probabilities.shape[2]]
                padded = torch.nn.functional.pad(heard, (0, 0, 0, -length % stride))
                wanted = padded.reshape(-1, stride, heard.shape[1]).sum(dim=1)
                total += float((shown[row, : int(lengths[row])] - wanted).double().square().sum())
        return total

    with torch.no_grad():
        best = residual()
        for seed in range(4):
            change = torch.randn(model.bridge.linear.weight.shape, generator=torch.Generator().manual_seed(seed))
            model.bridge.linear.weight += 1e-2 * change
            assert residual() > best
            model.bridge.linear.weight -= 1e-2 * change


def test_refuses_what_it_cannot_fit():
    with pytest.raises(ConfigError, match="stack"):
        fit_bridge_to_ctc(tiny_speech_llm(bridge="conv"), [])
    with pytest.raises(ConfigError, match="CTC head"):
        fit_bridge_to_ctc(tiny_speech_llm(ctc_layers=()), [])
