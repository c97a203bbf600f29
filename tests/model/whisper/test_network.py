"""Whisper's network in plain torch, beside that of transformers."""

import pytest
import torch
from transformers import WhisperConfig as TheirConfig

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.model.acoustic import AcousticNetwork, HeadConfig
from kikitori.model.acoustic_model import AcousticModel, as_acoustic_model
from kikitori.model.decoder.encoder_decoder import layout
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.published.generation import Source
from kikitori.model.published.transcript_rules import whisper_rules
from kikitori.model.published.whisper import as_transformers
from kikitori.model.whisper.config import WhisperConfig
from kikitori.model.whisper.network import whisper_of
from tests.tiny import tiny_waveforms, tiny_whisper, tiny_whisper_units

VALUES = tiny_whisper().generation_config.to_dict()
PADDED = pad_waveforms(tiny_waveforms(3))


@pytest.fixture(scope="module")
def networks():
    """One Whisper in our form and in that of transformers."""
    theirs = tiny_whisper()
    ours, missing = whisper_of(WhisperConfig.of(theirs.config.to_dict()), theirs.state_dict())
    assert not missing
    return ours.eval(), theirs


@pytest.mark.parametrize("window", ["padded", "speech"])
def test_frames_and_logits_are_those_of_transformers_bit_for_bit(networks, window):
    found = []
    for network in networks:
        rules, _ = whisper_rules(Source("tiny", VALUES, network.config, tiny_whisper_units(), "en"))
        model = EncoderDecoder(network, layout.WHISPER, rules, "en", 30.0).with_window(window).eval()
        with torch.inference_mode():
            encoded = model.encode(*PADDED)
            decoder = model.decoder(encoded)
            hidden, state = decoder.prefill(torch.tensor([[5, 6, 7]] * 3))
            more, _ = decoder.append(torch.tensor([[8, 9]] * 3), state)
            found.append((encoded.frames, encoded.window, decoder.project(hidden), decoder.project(more)))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_states_between_layers_are_those_of_transformers(networks):
    encoders = [SpeechEncoder(network.config, model=network.model.encoder).eval() for network in networks]
    with torch.inference_mode():
        ours, theirs = (encoder(*PADDED, layers=[1, 2]).intermediate for encoder in encoders)
    assert all(map(torch.equal, ours, theirs))


def test_transformers_takes_it_back(networks):
    ours, theirs = networks
    back = as_transformers(ours)
    assert back.config.to_diff_dict() == theirs.config.to_diff_dict()
    assert {*back.state_dict()} == {*theirs.state_dict()} == {*ours.state_dict()}
    assert all(torch.equal(tensor, theirs.state_dict()[name]) for name, tensor in back.state_dict().items())
    assert back.proj_out.weight is back.model.decoder.embed_tokens.weight
    assert ours.proj_out.weight is ours.model.decoder.embed_tokens.weight


def test_heads_can_go_on_learning_in_transformers(networks):
    ours, _ = networks
    encoder = SpeechEncoder(ours.config, model=ours.model.encoder)
    network = AcousticNetwork(HeadConfig(ours.config, [1, 2], 12, ["a", "b"], [2], 2), encoder).eval()
    model = as_acoustic_model(network)
    assert isinstance(model, AcousticModel)
    assert as_acoustic_model(model) is model
    with torch.inference_mode():
        both = [
            (each.log_probs(each.encode(*PADDED)), each.phone_log_probs(each.encode(*PADDED)))
            for each in (network, model)
        ]
    for ours_found, found in zip(*both, strict=True):
        assert all(map(torch.equal, ours_found, found))
    assert model.config.encoder_config.to_diff_dict() == ours_config(ours)
    assert model.config.to_diff_dict()["ctc_layers"] == [1, 2]


def ours_config(network):
    return TheirConfig(**network.config.entries()).to_diff_dict()


def test_an_output_matrix_of_its_own(networks):
    ours, theirs = networks
    tensors = theirs.state_dict()
    own = {**tensors, "proj_out.weight": tensors["proj_out.weight"] + 1}
    entries = ours.config.entries()
    apart, _ = whisper_of(WhisperConfig.of(entries | {"tie_word_embeddings": False}), own)
    assert torch.equal(apart.proj_out.weight, own["proj_out.weight"])
    assert torch.equal(apart.model.decoder.embed_tokens.weight, tensors["proj_out.weight"])
    del own["proj_out.weight"]
    for tied in (True, False):  # a folder without one has that of the embeddings
        found, missing = whisper_of(WhisperConfig.of(entries | {"tie_word_embeddings": tied}), own)
        assert found.proj_out.weight is found.model.decoder.embed_tokens.weight
        assert not missing


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"d_model": "large"}, "d_model but 'large'"),
        ({"encoder_layers": 0}, "encoder_layers but 0"),
        ({"decoder_attention_heads": 5}, "do not divide"),
        ({"activation_function": "relu"}, "not that of Whisper"),
        ({"scale_embedding": True}, "not that of Whisper"),
    ],
)
def test_what_is_no_whisper_is_refused(changes, problem):
    with pytest.raises(ModelError, match=problem):
        WhisperConfig.of(tiny_whisper().config.to_dict() | changes)
