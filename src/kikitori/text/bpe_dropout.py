"""BPE dropout: segmentations of a BPE vocabulary drawn at random, for training (Provilkov et al. 2020, papers.md B1.4).

A model that sees a word in several segmentations learns what its letters are. Decoding never draws.
"""

import json
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from kikitori.errors import ConfigError
from kikitori.text.units import TokenizerUnits


class BPEDropout:
    """Segments text with merges of a BPE passed over at random, each with the probability `rate` when it could be made.

    Raises:
        ConfigError: The units are no BPE, or one that marks the inside or the end of words.
    """

    def __init__(self, units: TokenizerUnits, rate: float) -> None:
        if not units.tokenizer.is_fast:
            raise _refusal("the tokenizer does not show its merges")
        self.units, self.rate = units, rate
        self._backend = units.tokenizer.backend_tokenizer
        model = json.loads(self._backend.to_str())["model"]
        if model["type"] != "BPE":
            raise _refusal(f"the units are {model['type']}, not BPE")
        if model["continuing_subword_prefix"] or model["end_of_word_suffix"]:
            raise _refusal("a BPE with marks inside or behind words is not supported")
        self._vocabulary: dict[str, int] = model["vocab"]
        self._whole_words = bool(model.get("ignore_merges"))  # Llama 3: a word of the vocabulary needs no merges
        self._ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}

    def encode(self, text: str, generator: np.random.Generator) -> list[int]:
        """Text to labels, in the units' text form and without special labels."""
        return segmented(self.units, text, lambda word: self._segment(word, generator))

    def _segment(self, word: str, generator: np.random.Generator) -> list[int]:
        if self._whole_words and word in self._vocabulary and generator.random() >= self.rate:
            return [self._vocabulary[word]]
        pieces = list(word)
        if not all(piece in self._vocabulary for piece in pieces):
            # Bytes or the unknown label stand for some character: as the tokenizer does it.
            return [token.id for token in self._backend.model.tokenize(word)]
        while len(pieces) > 1:
            drawn = generator.random(len(pieces) - 1)
            merges = [
                (self._ranks[pair], index)
                for index, pair in enumerate(pairwise(pieces))
                if pair in self._ranks and drawn[index] >= self.rate
            ]
            if not merges:
                break
            _, index = min(merges)
            pieces[index : index + 2] = [pieces[index] + pieces[index + 1]]
        return [self._vocabulary[piece] for piece in pieces]


def segmented(units: TokenizerUnits, text: str, segment: Callable[[str], list[int]]) -> list[int]:
    """Text to labels, in the units' text form and without special labels, where something else segments words."""
    backend = units.tokenizer.backend_tokenizer
    normalizer, splitter = backend.normalizer, backend.pre_tokenizer
    text = text if normalizer is None else normalizer.normalize_str(text)
    words = [text] if splitter is None else [word for word, _ in splitter.pre_tokenize_str(text)]
    labels = [label for word in words for label in segment(word)]
    return [label for label in labels if label not in (units.bos_id, units.eos_id)]


def _refusal(what: str) -> ConfigError:
    return ConfigError(what, where="units.bpe_dropout", remedy="set it to 0, or take an LLM's BPE (units.kind=llm)")
