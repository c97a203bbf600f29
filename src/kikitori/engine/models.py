"""Recognisers as an engine offers them: each with the searches that were tried and work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kikitori.context import reads_prompts, takes_hotwords
from kikitori.engine.base import ModelCard, SearchCard
from kikitori.errors import ConfigError, KikitoriError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.recognizer import PLAIN, Recognizer
from kikitori.search.defaults import named_search
from kikitori.search.options import SEARCHES, CTCGreedySearch, Decoding


@dataclass(frozen=True)
class ServedModel:
    """A recogniser and the searches that it offers, by name, its own first."""

    name: str
    recognizer: Recognizer
    searches: Mapping[str, Decoding]

    @property
    def card(self) -> ModelCard:
        """What clients may know of it."""
        first = next(iter(self.searches))
        return ModelCard(
            name=self.name,
            language=self.recognizer.loaded.trained_on.language,
            word_times=self.recognizer.has_word_times,
            ctc=CTCGreedySearch.search in self.searches,
            longest_s=self.recognizer.longest / SAMPLE_RATE,
            searches=tuple(
                SearchCard(
                    name,
                    name == first,
                    "integration" if search.autoregressive else "combination",
                    takes_hotwords(self.recognizer.loaded, search),
                )
                for name, search in self.searches.items()
            ),
            prompt=reads_prompts(self.recognizer.loaded),
            decoder=self.recognizer.decoder,
        )


def served(recognizer: Recognizer, names: Sequence[str] | None = None) -> ServedModel:
    """A recogniser with its own search, and others by their names, each tried on a second of noise.

    Trying loads the language models of a search and compiles what it runs. Where no names are given, all searches are
    tried, and those for which the model has not what they take are left out.

    Raises:
        KikitoriError: The own search, or one that is named, does not work with this model.
    """
    own = recognizer.decoding
    _try(recognizer, own)
    searches: dict[str, Decoding] = {own.search: own}
    for name in SEARCHES if names is None else names:
        if name in searches:
            continue
        try:
            search = named_search(name, recognizer.folder)
            _try(recognizer, search)
            searches[name] = search
        except KikitoriError:
            if names is not None:
                raise
    return ServedModel(recognizer.name, recognizer, searches)


def by_name(models: Sequence[ServedModel]) -> dict[str, ServedModel]:
    """Models by their names.

    Raises:
        ConfigError: Two have the same.
    """
    found = {model.name: model for model in models}
    if len(found) < len(models):
        raise ConfigError("two models have the same name", where="--model", remedy="rename one of their folders")
    return found


def _try(recognizer: Recognizer, search: Decoding) -> None:
    noise = np.random.default_rng(0).normal(0.0, 0.1, SAMPLE_RATE).astype(np.float32)
    result = recognizer.try_recognize([noise], search, PLAIN)[0]
    if isinstance(result, KikitoriError):
        raise result
