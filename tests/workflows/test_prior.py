from pathlib import Path

import pytest
import torch

from kikitori.errors import ConfigError, DataError
from kikitori.types import Utterance
from kikitori.workflows.prior import sampled_text_prior, text_prior
from tests.tiny import TEXTS, tiny_bpe, tiny_units

ROWS = [Utterance(Path("none.wav"), 1.0, text) for text in (*TEXTS, "")]


def probabilities(prior, units):
    assert prior.shape == (units.size,)
    assert float(prior.exp().sum()) == pytest.approx(1.0, abs=1e-5)
    return prior.exp()


@pytest.mark.parametrize("units", [tiny_units("pieces"), tiny_bpe("bytes")])
def test_counts_of_transcripts_and_of_their_segmentations(units):
    plain = probabilities(text_prior(units, ROWS), units)
    sampled = probabilities(sampled_text_prior(units, ROWS), units)
    labels = [label for text in TEXTS for label in units.encode(text)]
    expected = 0.9 * torch.bincount(torch.tensor(labels), minlength=units.size) / len(labels) + 0.1 / units.size
    assert plain.tolist() == pytest.approx(expected.tolist(), abs=1e-6)
    assert float((sampled - plain).abs().sum()) > 0.02  # drawn segmentations show other labels too
    assert sampled_text_prior(units, ROWS).equal(sampled_text_prior(units, ROWS, seed=0))
    assert not sampled_text_prior(units, ROWS).equal(sampled_text_prior(units, ROWS, seed=1))


def test_characters_have_one_segmentation():
    units = tiny_units()
    assert sampled_text_prior(units, ROWS).tolist() == pytest.approx(text_prior(units, ROWS).tolist(), abs=1e-6)


def test_nothing_to_count():
    for estimate in (text_prior, sampled_text_prior):
        with pytest.raises(DataError, match="no transcript"):
            estimate(tiny_units(), ROWS[-1:])
    with pytest.raises((ConfigError, DataError)):
        sampled_text_prior(tiny_units(), ROWS, samples=0)
