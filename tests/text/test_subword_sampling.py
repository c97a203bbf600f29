import json
from collections import Counter

import numpy as np
import pytest
from tokenizers.models import WordLevel

from kikitori.errors import ConfigError
from kikitori.text.subword_sampling import ALPHA, BPEDropout, UnigramSampling, subword_sampler
from tests.tiny import TEXTS, tiny_bpe, tiny_units

PIECES = tiny_units("pieces")
LABELS = PIECES.tokenizer.get_vocab()


def generator(seed=0):
    return np.random.default_rng(seed)


def segmentations(word):
    """All ways to spell a word, as labels."""
    if not word:
        return [()]
    heads = [word[:size] for size in range(1, len(word) + 1) if word[:size] in LABELS]
    return [(LABELS[head], *rest) for head in heads for rest in segmentations(word[len(head) :])]


def test_every_draw_spells_the_text():
    for kind in (PIECES, tiny_bpe("bytes"), tiny_bpe("characters")):
        sampler, drawn = subword_sampler(kind), generator()
        drawings = [{tuple(sampler.encode(text, drawn)) for _ in range(20)} for text in TEXTS]
        assert max(map(len, drawings)) > 1
        for text, found in zip(TEXTS, drawings, strict=True):
            assert {kind.decode(labels) for labels in found} == {text}


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_draws_are_in_proportion_to_the_probabilities(alpha):
    pieces = json.loads(PIECES.tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    ways = segmentations("▁the")
    weights = np.array([np.exp(alpha * sum(pieces[label][1] for label in way)) for way in ways])
    sampler, drawn = UnigramSampling(PIECES, alpha), generator()
    counts = Counter(tuple(sampler.encode("the", drawn)) for _ in range(4000))
    assert len(ways) > 2
    assert set(counts) <= set(ways)
    found = [counts[way] / 4000 for way in ways]
    assert found == pytest.approx((weights / weights.sum()).tolist(), abs=0.03)


def test_a_high_power_gives_the_usual_labels():
    sampler, drawn = UnigramSampling(PIECES, 1e4), generator()
    for text in (*TEXTS, "the 蛙 fox", ""):
        assert sampler.encode(text, drawn) == PIECES.encode(text)


def test_which_sampler_and_the_same_seed():
    assert isinstance(subword_sampler(PIECES), UnigramSampling)
    assert isinstance(subword_sampler(tiny_bpe()), BPEDropout)
    sampler = subword_sampler(PIECES)
    assert sampler.encode(TEXTS[0], generator(3)) == sampler.encode(TEXTS[0], generator(3))
    assert 0 < ALPHA < 1


def test_units_that_cannot_be_sampled():
    units = tiny_units()
    units.tokenizer.backend_tokenizer.model = WordLevel({"<unk>": 0}, unk_token="<unk>")  # noqa: S106
    with pytest.raises(ConfigError, match=r"sampled segmentation: the units are WordLevel.*; use counts"):
        subword_sampler(units)
