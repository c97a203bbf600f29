"""External language models and priors of a recogniser: by path, or from its own folder."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.io.model_folder import LEXICON, PHONE_PRIOR, WORD_NGRAM, heads_file, model_folder
from kikitori.io.model_folder import LM as LM_FOLDER
from kikitori.io.model_folder import PRIOR as PRIOR_FILE
from kikitori.model.decoder.probe import check_scoring, check_trees
from kikitori.scorers.base import Scorer, SequenceScorer, WeightedSum
from kikitori.scorers.ctc.phones import Ways
from kikitori.scorers.ctc.speller import TokenSpeller
from kikitori.scorers.language_model import LanguageModel, LMSequenceScorer, load_language_model
from kikitori.scorers.lm import LMScorer, load_lm_scorer
from kikitori.scorers.ngram import NGramScorer, is_ngram, label_words
from kikitori.scorers.options import LENGTH, LM, NGRAM, PHONES, PRIOR, LMOptions, ScorerOptions, Scorers
from kikitori.scorers.prior import PriorScorer, length_scorer, load_prior
from kikitori.search.defaults import default_draft_search
from kikitori.search.fusion.retokenizing import RetokenizingLM
from kikitori.search.fusion.words import WordLMScorer
from kikitori.search.lexicon.trie import WordModel, word_model
from kikitori.search.options import (
    DraftSearch,
    LexiconSearch,
    RescoringSearch,
    Scored,
    ShallowFusionSearch,
)
from kikitori.search.rescore import lm_scorer, prior_scorer
from kikitori.text.lexicon import read_lexicon, read_numbered
from kikitori.text.ngram.model import load_ngram
from kikitori.text.units import (
    TokenizerUnits,
    differing_labels,
    labels_fingerprint,
    load_units,
    vocabulary_fingerprint,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

T = TypeVar("T")
UNKNOWN_SCORE = -5.0
"""Added to the log-probability of `<unk>` for words of the lexicon that the n-gram has not."""


class ExternalModels:
    """The external models of one recogniser (in a folder, if it has one); each is loaded once."""

    def __init__(self, folder: Path | None, units: TokenizerUnits, device: torch.device) -> None:
        self._folder, self._units, self._device = folder, units, device
        self._loaded: dict[Hashable, Any] = {}

    def speller(self, units: TokenizerUnits) -> TokenSpeller:
        """From tokens of a decoder to these units, characters.

        Raises:
            ModelError: They are no characters.
        """
        return self._once("speller", lambda: TokenSpeller(units, self._units))

    @cached_property
    def draft_search(self) -> DraftSearch:
        """What makes the drafts that the recogniser's LLM reads beside the speech.

        Raises:
            KikitoriError: There is none, or it is wrong (see `default_draft_search`).
        """
        return default_draft_search(self._folder)

    def scorer(self, options: ShallowFusionSearch, others: Sequence[tuple[Scorer[Any], float]] = ()) -> WeightedSum:
        """What scores labels beside the CTC head: the LM, the n-gram and the prior if there are, the length, others.

        Raises:
            ModelError: The LM is missing, damaged or over other label units; or the prior is, and it is asked for.
        """
        weighted: list[tuple[Scorer[Any], float]] = [*self._fused(options)]
        weighted.append((length_scorer(self._units.size), options.scale(LENGTH)))
        if (prior := self.prior(options)) is not None:
            weighted.append((PriorScorer(prior), options.scale(PRIOR)))
        return WeightedSum([*weighted, *others])

    def named(self, options: Scored, num_labels: int) -> list[tuple[Scorer[Any], float]]:
        """The external scorers that a search of the decoder names, over the first `num_labels` of the labels.

        A language model over other label units judges whole words.

        Raises:
            ModelError: One is missing, damaged or over other label units.
        """
        found: list[tuple[Scorer[Any], float]] = []
        if LM in options.scorers:
            found.append((self._beside_decoder(options, num_labels), options.scale(LM)))
        if (ngram := options.scorer(NGRAM).path) is not None:
            found.append((self._ngram(ngram, NGRAM), options.scale(NGRAM)))
        if PRIOR in options.scorers and (prior := self.prior(options)) is not None:
            found.append((PriorScorer(prior), options.scale(PRIOR)))
        return found

    def _beside_decoder(self, options: Scored, num_labels: int) -> Scorer[Any]:
        path = options.scorer(LM).path or self._own_lm()
        if is_ngram(path) or self._once(("units", path), lambda: self._has_units(model_folder(path))):
            return self.lm(path)
        return WordLMScorer(self.reader(options), num_labels)

    def _has_units(self, path: str) -> bool:
        """Whether a language model gives every label of the recogniser the same number."""
        return not any(differing_labels(self._units, load_units(path)))

    def prior(self, options: Scored) -> Tensor | None:
        """The label prior, (labels,), None where there is none and none is asked for.

        Raises:
            ModelError: It is missing or damaged, and asked for.
        """
        named = options.scorer(PRIOR).path
        file = Path(named) if named else self._own(PRIOR_FILE)
        if not options.scale(PRIOR) and not named and not (file is not None and file.is_file()):
            return None
        if file is None:
            raise ModelError("no label prior is named", where="decoding.scorers.prior.path", remedy="name its file")
        return self.load_prior(file)

    def max_labels(self, options: ShallowFusionSearch) -> int | None:
        """Most labels of a hypothesis that the language models of a search have positions for; None without a limit."""
        return min((lm.max_labels for lm, _ in self._fused(options) if lm.max_labels is not None), default=None)

    def load_prior(self, file: Path) -> Tensor:
        """A prior over the recogniser's units, (labels,).

        Raises:
            ModelError: It is missing, damaged or over other labels.
        """
        return load_prior(file, self._units.size, vocabulary=vocabulary_fingerprint(self._units))

    def _fused(self, options: ShallowFusionSearch) -> list[tuple[LMScorer | NGramScorer, float]]:
        """The language models of label-wise fusion, with their scales.

        Beside an n-gram the recogniser's own LM joins if it lies in the folder and counts.
        """
        found: list[tuple[LMScorer | NGramScorer, float]] = []
        own, lm, ngram = self._own(LM_FOLDER), options.scorer(LM).path, options.scorer(NGRAM).path
        joins = own is not None and own.is_dir() and options.scale(LM) != 0.0
        if ngram is None or lm is not None or joins:
            found.append((self.lm(lm), options.scale(LM)))
        if ngram is not None:
            found.append((self._ngram(ngram, NGRAM), options.scale(NGRAM)))
        return found

    def _ngram(self, file: str, name: str) -> NGramScorer:
        def load() -> NGramScorer:
            return NGramScorer(load_ngram(file), label_words(self._units), name=name, where=file)

        return self._once((name, file), load)

    def lm(self, path_or_id: str | None) -> LMScorer | NGramScorer:
        """A language model over the recogniser's units by folder, run, hub id or n-gram's file; None for its own.

        Raises:
            ModelError: It is missing, damaged or over other label units.
        """
        if path_or_id is not None and is_ngram(path_or_id):
            return self._ngram(path_or_id, LM)
        path = model_folder(path_or_id or self._own_lm())
        return self._once(path, lambda: load_lm_scorer(path, self._units, self._device))

    def text_lm(self, options: LMOptions, check: Callable[["PreTrainedModel"], None] = check_scoring) -> LanguageModel:
        """A language model that scores whole texts, over any units; `check` as of `load_language_model`.

        Raises:
            ModelError: It is missing or damaged.
        """
        return self._once(options, lambda: load_language_model(options, self._device, check))

    def with_paths(self, options: RescoringSearch) -> RescoringSearch:
        """Rescoring whose `lm` and `prior` without a path are those of the recogniser's folder, if they lie there."""
        own = {LM: self._own(LM_FOLDER), PRIOR: self._own(PRIOR_FILE)}
        found = {
            name: replace(options.scorers[name], path=str(path))
            for name, path in own.items()
            if name in options.scorers and options.scorers[name].path is None and path is not None and path.exists()
        }
        return replace(options, scorers={**options.scorers, **found})

    def sequence_scorers(self, options: RescoringSearch) -> list[SequenceScorer]:
        """The language models, n-grams and priors that rescoring names, over hypotheses of the recogniser.

        Raises:
            ModelError: One is missing, damaged or over other labels.
        """
        lms = [self._sequence_lm(name, each.lm_options(str(each.path))) for name, each in options.lms.items()]
        return [*lms, *(self._sequence_prior(name, each, options.lms) for name, each in options.priors.items())]

    def _sequence_lm(self, name: str, options: LMOptions) -> SequenceScorer:
        if not is_ngram(options.path):
            return LMSequenceScorer(name, self.text_lm(options), self._units)
        return self._once((name, options), lambda: lm_scorer(name, options, self._units))

    def _sequence_prior(self, name: str, options: ScorerOptions, lms: Scorers) -> SequenceScorer:
        key = name, options, None if options.lm is None else lms[options.lm]
        return self._once(key, lambda: prior_scorer(name, options, lms, self._units))

    def reader(self, options: Scored) -> RetokenizingLM:
        """The language model over any units that scores words as they are completed.

        Raises:
            ModelError: It is missing, damaged or an n-gram, it cannot read trees of hypotheses, or it cannot write the
                recogniser's texts.
        """
        scorer = options.scorer(LM)
        lm_options = scorer.lm_options(scorer.path or self._own_lm())
        if is_ngram(lm_options.path):
            raise ModelError(
                "an n-gram, and delayed fusion takes causal LMs", where=lm_options.path, remedy="use it in rescoring"
            )
        return self._once((RetokenizingLM, lm_options), lambda: self._reader(lm_options))

    def words(self, options: LexiconSearch, phones: Sequence[str]) -> tuple[WordModel, Tensor | None]:
        """Pronunciations in the acoustic model's phones with an n-gram, and the phone prior if it counts, (phones,).

        Raises:
            DataError: The lexicon cannot be read.
            ModelError: A file is missing or damaged, the lexicon has other phones, or none of the n-gram's words.
        """
        lexicon = self._lexicon(options)
        named, where = options.scorer(NGRAM).path, "decoding.scorers.ngram.path"
        ngram = self._file(named, WORD_NGRAM, where, "estimate it with kikitori ngram")

        def load_words() -> WordModel:
            parts = read_lexicon(lexicon), phones, load_ngram(ngram)
            return word_model(*parts, unknown_score=UNKNOWN_SCORE, where=lexicon)

        words = self._once((lexicon, ngram), load_words)
        if not options.scale(PRIOR):
            return words, None
        named, where = options.scorer(PRIOR).path, "decoding.scorers.prior.path"
        prior = self._file(named, PHONE_PRIOR, where, "estimate it with kikitori prior --phones")
        return words, load_prior(prior, len(phones), vocabulary=labels_fingerprint(phones))

    def pronunciations(self, options: RescoringSearch, phones: Sequence[str]) -> Mapping[str, Ways]:
        """How words are said in the acoustic model's phones: the lexicon that rescoring names, or that of the folder.

        Raises:
            DataError: The lexicon cannot be read.
            ModelError: It is missing, or has other phones.
        """
        file = self._lexicon(options)
        numbers = {phone: number for number, phone in enumerate(phones)}
        return self._once((PHONES, file), lambda: read_numbered(file, numbers))

    def _lexicon(self, options: LexiconSearch | RescoringSearch) -> Path:
        named, where = options.scorer(PHONES).path, "decoding.scorers.phones.path"
        return self._file(named, LEXICON, where, "build it with kikitori lexicon")

    def _file(self, named: str | None, own: str, option: str, remedy: str) -> Path:
        """A file that is named or lies in the recogniser's folder."""
        file = Path(named) if named else self._own(own)
        if file is None or not file.is_file():
            where = file or option
            raise ModelError(f"there is no {own}", where=where, remedy=f"{remedy}, and name it with {option}")
        return file

    def _reader(self, options: LMOptions) -> RetokenizingLM:
        lm = self.text_lm(options, check_trees)
        check_trees(lm.llm)  # it may have been loaded to score whole texts
        reader = RetokenizingLM(lm, self._units)
        reader.check(options.path)
        return reader

    def _once(self, key: Hashable, load: Callable[[], T]) -> T:
        """What `load` gives, kept for later; keys are the options that it is loaded by."""
        if key not in self._loaded:
            self._loaded[key] = load()
        found: T = self._loaded[key]
        return found

    def _own_lm(self) -> str:
        own, option = self._own(LM_FOLDER), "decoding.scorers.lm.path"
        if own is None or not own.is_dir():
            raise ModelError(
                "the model folder has no lm/", where=self._folder or option, remedy=f"name one with {option}"
            )
        return str(own)

    def _own(self, name: str) -> Path | None:
        return None if self._folder is None else heads_file(self._folder, name)
