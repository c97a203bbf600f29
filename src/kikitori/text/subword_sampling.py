"""Segmentations drawn at random, for units of either kind: BPE by dropout, unigram models by their own probabilities.

Label counts over several segmentations of each transcript also see what else the labels may spell (papers.md B3.5).
"""

import json
import math
from typing import Any, Protocol

import numpy as np

from kikitori.errors import ConfigError
from kikitori.text.bpe_dropout import BPEDropout, segmented
from kikitori.text.units import TokenizerUnits

DROPOUT = 0.1
"""Share of BPE merges that are passed over (papers.md B3.5)."""
ALPHA = 0.2
"""Power of the probabilities of a unigram model's segmentations (Kudo 2018, section 3.2, over all segmentations)."""


class Sampler(Protocol):
    """Text to labels, another time to others."""

    def encode(self, text: str, generator: np.random.Generator) -> list[int]:
        """Text to labels, in the units' text form and without special labels."""
        ...


def subword_sampler(units: TokenizerUnits) -> Sampler:
    """`BPEDropout` at the rate 0.1, or `UnigramSampling` with the power 0.2, whatever the units are.

    Raises:
        ConfigError: They are neither, or do not say.
    """
    try:
        if units.tokenizer.is_fast and _model(units)["type"] == "Unigram":
            return UnigramSampling(units, ALPHA)
        return BPEDropout(units, DROPOUT)
    except ConfigError as error:
        raise ConfigError(error.what, where="sampled segmentation", remedy="use counts") from None


class UnigramSampling:
    """Draws a segmentation y of a word with a probability in proportion to p(y)^alpha (Kudo 2018).

    All segmentations may be drawn; forward sums, then a draw from behind. With an alpha of 0 all are alike; the larger,
    the rarer is another than the usual one.
    """

    def __init__(self, units: TokenizerUnits, alpha: float) -> None:
        self._units, self._backend = units, units.tokenizer.backend_tokenizer
        model = _model(units)
        special = {model["unk_id"], units.bos_id, units.eos_id}
        pieces = enumerate(model["vocab"])
        self._pieces = {piece: (label, alpha * score) for label, (piece, score) in pieces if label not in special}
        self._longest = max(map(len, self._pieces), default=0)

    def encode(self, text: str, generator: np.random.Generator) -> list[int]:
        """Text to labels, in the units' text form and without special labels."""
        return segmented(self._units, text, lambda word: self._segment(word, generator))

    def _segment(self, word: str, generator: np.random.Generator) -> list[int]:
        if not all(character in self._pieces for character in word):
            # The unknown label, or bytes, stand for some character: as the tokenizer does it.
            return [token.id for token in self._backend.model.tokenize(word)]
        sums = [0.0]  # log of the summed weights of all ways to reach a place
        edges: list[list[tuple[int, int, float]]] = [[]]  # start, label, log weight of that way
        for end in range(1, len(word) + 1):
            ways = [
                (start, found[0], sums[start] + found[1])
                for start in range(max(0, end - self._longest), end)
                if (found := self._pieces.get(word[start:end])) is not None
            ]
            highest = max(weight for _, _, weight in ways)
            sums.append(highest + math.log(sum(math.exp(weight - highest) for _, _, weight in ways)))
            edges.append(ways)
        labels, place = [], len(word)
        while place:
            drawn = generator.random()
            for start, label, weight in edges[place]:  # noqa: B007  (the last one if rounding leaves a rest)
                drawn -= math.exp(weight - sums[place])
                if drawn < 0:
                    break
            labels.append(label)
            place = start
        return labels[::-1]


def _model(units: TokenizerUnits) -> dict[str, Any]:
    model: dict[str, Any] = json.loads(units.tokenizer.backend_tokenizer.to_str())["model"]
    return model
