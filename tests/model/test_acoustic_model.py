import pytest
import torch
from transformers import AutoConfig, AutoModel

from kikitori.data.speech import pad_waveforms
from kikitori.model import AcousticModel, AcousticModelConfig
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.safety.config import quiet_transformers
from tests.tiny import ENCODERS, shake, tiny_acoustic_model, tiny_encoder_config, tiny_waveforms

WAVEFORMS = tiny_waveforms(4, seconds=(0.3, 1.2))


@pytest.mark.parametrize("encoder", ENCODERS)
def test_saved_and_loaded_is_bit_identical(encoder, tmp_path):
    model = tiny_acoustic_model(encoder)
    model.save_pretrained(tmp_path)
    with quiet_transformers():
        loaded = [AcousticModel.from_pretrained(tmp_path).eval(), AutoModel.from_pretrained(tmp_path).eval()]
    assert type(AutoConfig.from_pretrained(tmp_path)) is AcousticModelConfig
    expected, batch = model.state_dict(), pad_waveforms(WAVEFORMS)
    for other in loaded:
        assert type(other) is AcousticModel
        assert other.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
        with torch.no_grad():
            for mine, theirs in zip(model(*batch), other(*batch), strict=True):
                assert torch.equal(mine, theirs)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_heads_read_the_layers_they_name(encoder):
    model = tiny_acoustic_model(encoder, ctc_layers=(1, 2))
    waveforms, lengths = pad_waveforms(WAVEFORMS)
    with torch.no_grad():
        encoded = model.encode(waveforms, lengths)
        whole = model.encoder(waveforms, lengths, layers=[1, 2])
        for layer, frames in ((1, whole.intermediate[0]), (2, whole.frames)):
            expected = model.ctc_heads[str(layer)].linear(frames).log_softmax(-1)
            log_probs, frame_lengths = model.log_probs(encoded, layer)
            torch.testing.assert_close(log_probs, expected)
            assert torch.equal(frame_lengths, whole.lengths)
        assert torch.equal(model.log_probs(encoded)[0], model.log_probs(encoded, 2)[0])
        assert torch.equal(model(waveforms, lengths)[0], model.log_probs(encoded, 2)[0])


def test_heads_are_numbered_by_layer_whatever_the_order():
    model = tiny_acoustic_model("hubert", ctc_layers=(2, 1))
    batch = pad_waveforms(WAVEFORMS)
    with torch.no_grad():
        encoded = model.encode(*batch)
        first = model.ctc_heads["1"].linear(model.encoder(*batch, layers=[1]).intermediate[0]).log_softmax(-1)
        torch.testing.assert_close(model.log_probs(encoded)[0], first)  # the last one named decodes


@pytest.mark.parametrize("encoder", ENCODERS)
def test_an_adopted_encoder_keeps_its_weights_and_its_attention(encoder):
    torch.manual_seed(0)
    adopted = SpeechEncoder(tiny_encoder_config(encoder)).eval()
    shake(adopted, 0, 0.1)
    batch = pad_waveforms(WAVEFORMS)
    with torch.no_grad():
        before, attention = adopted(*batch), adopted.model.config._attn_implementation
        config = AcousticModelConfig(encoder_config=adopted.config, ctc_layers=[2], num_units=9)
        model = AcousticModel(config, encoder=adopted).eval()
        after = model.encoder(*batch)
    assert attention is not None
    assert model.encoder.model.config._attn_implementation == attention
    assert torch.equal(before.frames, after.frames)


def test_without_heads_it_is_an_encoder(tmp_path):
    model = tiny_acoustic_model("hubert", ctc_layers=())
    model.save_pretrained(tmp_path)
    with quiet_transformers():
        loaded = AcousticModel.from_pretrained(tmp_path).eval()
    assert len(loaded.ctc_heads) == 0
    with torch.no_grad():
        assert loaded.encode(*pad_waveforms(WAVEFORMS)).intermediate == ()


def test_gradients_reach_encoder_and_every_head():
    model = tiny_acoustic_model("hubert").train()
    encoded = model.encode(*pad_waveforms(WAVEFORMS))
    sum(model.log_probs(encoded, layer)[0][..., 3].mean() for layer in (1, 2)).backward()
    for layer in ("1", "2"):
        assert model.ctc_heads[layer].linear.weight.grad.abs().sum() > 0
    assert model.encoder.model.feature_projection.projection.weight.grad.abs().sum() > 0
