"""The sweep over encoders tells right, refused and wrong apart."""

from functools import partial

import pytest

from encoders import OTHERS, SETTINGS, check, outcome, read_config, tiny_config
from kikitori.model.encoder import MODEL_CLASSES, SpeechEncoder


def test_every_encoder_is_swept():
    assert {*SETTINGS} == {*MODEL_CLASSES}
    assert not {*OTHERS} & {*MODEL_CLASSES}


@pytest.mark.slow
def test_right_and_wrong(monkeypatch):
    config = partial(tiny_config, "moonshine", SETTINGS["moonshine"][0][1])
    assert outcome(lambda: check(config())) == ("yes", "")
    real = SpeechEncoder.forward

    def blind(self, waveforms, lengths, *, layers=()):
        """Takes padding for speech."""
        return real(self, waveforms.nan_to_num(), lengths.new_full(lengths.shape, int(lengths.max())), layers=layers)

    monkeypatch.setattr(SpeechEncoder, "forward", blind)
    assert outcome(lambda: check(config()))[0] == "**wrong**"


def test_refused():
    assert outcome(partial(read_config, "canary")) == ("yes", "")
    assert outcome(partial(read_config, "sew"))[1].endswith("encoder: its layers run at half the rate of its frames")
    assert outcome(partial(read_config, "mimi"))[0] == "no"
