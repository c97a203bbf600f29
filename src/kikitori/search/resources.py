"""External language models and priors of a recogniser: by path, or from its own folder."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.io.model_folder import LEXICON, PHONE_PRIOR, WORD_NGRAM
from kikitori.io.model_folder import LM as LM_FOLDER
from kikitori.io.model_folder import PRIOR as PRIOR_FILE
from kikitori.model.decoder.probe import check_trees
from kikitori.model.folder import load_llm, model_folder
from kikitori.scorers.base import Scorer, SequenceScorer, WeightedSum
from kikitori.scorers.language_model import LanguageModel, LMSequenceScorer, load_language_model
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.ngram import NGramScorer, is_ngram, label_words
from kikitori.scorers.options import LENGTH, LM, NGRAM, PRIOR, LMOptions, ScorerOptions, Scorers
from kikitori.scorers.prior import PriorScorer, length_scorer, load_prior
from kikitori.search.defaults import default_draft_search
from kikitori.search.fusion.retokenizing import RetokenizingLM
from kikitori.search.lexicon.trie import WordModel, word_model
from kikitori.search.options import (
    DelayedFusionSearch,
    DraftSearch,
    LexiconSearch,
    RescoringSearch,
    Scored,
    ShallowFusionSearch,
)
from kikitori.search.rescore import lm_scorer, prior_scorer
from kikitori.text.lexicon import read_lexicon
from kikitori.text.ngram.model import load_ngram
from kikitori.text.units import (
    TokenizerUnits,
    differing_labels,
    labels_fingerprint,
    load_units,
    vocabulary_fingerprint,
)

UNKNOWN_SCORE = -5.0
"""Added to the log-probability of `<unk>` for words of the lexicon that the n-gram has not."""


class ExternalModels:
    """The external models of one recogniser; each is loaded once.

    Args:
        folder: The recogniser's folder, None where it has none.
        units: Its label units.
        device: Where the LM computes.
    """

    def __init__(self, folder: Path | None, units: TokenizerUnits, device: torch.device) -> None:
        self._folder, self._units, self._device = folder, units, device
        self._lms: dict[str, LMScorer] = {}
        self._ngrams: dict[tuple[str, str], NGramScorer] = {}
        self._texts: dict[LMOptions, LanguageModel] = {}
        self._sequence_scorers: dict[tuple[str, LMOptions], SequenceScorer] = {}
        self._priors: dict[tuple[str, ScorerOptions, ScorerOptions | None], SequenceScorer] = {}
        self._readers: dict[LMOptions, RetokenizingLM] = {}
        self._words: dict[tuple[Path, Path], WordModel] = {}

    @cached_property
    def draft_search(self) -> DraftSearch:
        """What makes the drafts that the recogniser's LLM reads beside the speech.

        Raises:
            KikitoriError: There is none, or it is wrong (see `default_draft_search`).
        """
        return default_draft_search(self._folder)

    def scorer(self, options: ShallowFusionSearch) -> WeightedSum:
        """What scores labels beside the CTC head: the LM, the n-gram and the prior if there are, the length.

        Raises:
            ModelError: The LM is missing, damaged or over other label units; or the prior is, and it is asked for.
        """
        weighted: list[tuple[Scorer[Any], float]] = [*self._fused(options)]
        weighted.append((length_scorer(self._units.size), options.scale(LENGTH)))
        if (prior := self.prior(options)) is not None:
            weighted.append((PriorScorer(prior), options.scale(PRIOR)))
        return WeightedSum(weighted)

    def named(self, options: Scored) -> list[tuple[Scorer[Any], float]]:
        """The external scorers that a search of the speech LLM names, over the recogniser's labels.

        Raises:
            ModelError: One is missing, damaged or over other label units.
        """
        found: list[tuple[Scorer[Any], float]] = []
        if LM in options.scorers:
            found.append((self.lm(options.scorer(LM).path), options.scale(LM)))
        if (ngram := options.scorer(NGRAM).path) is not None:
            found.append((self._ngram(ngram, NGRAM), options.scale(NGRAM)))
        if PRIOR in options.scorers and (prior := self.prior(options)) is not None:
            found.append((PriorScorer(prior), options.scale(PRIOR)))
        return found

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
        if (file, name) not in self._ngrams:
            model = load_ngram(file)
            self._ngrams[file, name] = NGramScorer(model, label_words(self._units), name=name, where=file)
        return self._ngrams[file, name]

    def lm(self, path_or_id: str | None) -> LMScorer | NGramScorer:
        """A language model over the recogniser's units by folder, run, hub id or n-gram's file; None for its own.

        Raises:
            ModelError: It is missing, damaged or over other label units.
        """
        if path_or_id is not None and is_ngram(path_or_id):
            return self._ngram(path_or_id, LM)
        path = model_folder(path_or_id or self._own_lm())
        if path not in self._lms:
            self._lms[path] = self._load(path)
        return self._lms[path]

    def text_lm(self, options: LMOptions) -> LanguageModel:
        """A language model that scores whole texts, over any units.

        Raises:
            ModelError: It is missing or damaged.
        """
        if options not in self._texts:
            self._texts[options] = load_language_model(options, self._device)
        return self._texts[options]

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
        if (name, options) not in self._sequence_scorers:
            self._sequence_scorers[name, options] = lm_scorer(name, options, self._units)
        return self._sequence_scorers[name, options]

    def _sequence_prior(self, name: str, options: ScorerOptions, lms: Scorers) -> SequenceScorer:
        key = name, options, None if options.lm is None else lms[options.lm]
        if key not in self._priors:
            self._priors[key] = prior_scorer(name, options, lms, self._units)
        return self._priors[key]

    def reader(self, options: DelayedFusionSearch) -> RetokenizingLM:
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
        if lm_options not in self._readers:
            lm = self.text_lm(lm_options)
            check_trees(lm.llm)
            reader = RetokenizingLM(lm, self._units)
            reader.check(lm_options.path)
            self._readers[lm_options] = reader
        return self._readers[lm_options]

    def words(self, options: LexiconSearch, phones: Sequence[str]) -> tuple[WordModel, Tensor | None]:
        """Pronunciations with an n-gram, and the phone prior if it counts, (phones,).

        Args:
            options: The search.
            phones: The phones of the acoustic model, by number.

        Raises:
            DataError: The lexicon cannot be read.
            ModelError: A file is missing or damaged, the lexicon has other phones, or none of the n-gram's words.
        """
        lexicon = self._file(options.lexicon, LEXICON, "decoding.lexicon", "build it with kikitori lexicon")
        named, where = options.scorer(NGRAM).path, "decoding.scorers.ngram.path"
        ngram = self._file(named, WORD_NGRAM, where, "estimate it with kikitori ngram")
        key = lexicon, ngram
        if key not in self._words:
            self._words[key] = word_model(
                *(read_lexicon(lexicon), phones, load_ngram(ngram)), unknown_score=UNKNOWN_SCORE, where=lexicon
            )
        if not options.scale(PRIOR):
            return self._words[key], None
        named, where = options.scorer(PRIOR).path, "decoding.scorers.prior.path"
        prior = self._file(named, PHONE_PRIOR, where, "estimate it with kikitori prior --phones")
        return self._words[key], load_prior(prior, len(phones), vocabulary=labels_fingerprint(phones))

    def _file(self, named: str | None, own: str, option: str, remedy: str) -> Path:
        """A file that is named or lies in the recogniser's folder."""
        file = Path(named) if named else self._own(own)
        if file is None or not file.is_file():
            where = file or option
            raise ModelError(f"there is no {own}", where=where, remedy=f"{remedy}, and name it with {option}")
        return file

    def _load(self, path: str) -> LMScorer:
        units = load_units(path)
        if different := [*differing_labels(self._units, units)]:
            raise ModelError(
                f"other label units than the recogniser's: {len(different)} of {self._units.size} differ",
                where=path,
                remedy="label-wise fusion needs equal units; delayed fusion is the way for an LM with others",
            )
        llm = load_llm(path).eval().to(self._device)  # type: ignore[arg-type]
        if (known := int(llm.get_input_embeddings().num_embeddings)) < units.size:
            raise ModelError(
                f"the tokenizer has {units.size} labels, the model {known}", where=path, remedy="copy the folder again"
            )
        bos = units.eos_id if units.bos_id is None else units.bos_id
        return LMScorer(llm, self._units.size, bos_id=bos, eos_id=units.eos_id)

    def _own_lm(self) -> str:
        own, option = self._own(LM_FOLDER), "decoding.scorers.lm.path"
        if own is None or not own.is_dir():
            raise ModelError(
                "the model folder has no lm/", where=self._folder or option, remedy=f"name one with {option}"
            )
        return str(own)

    def _own(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name
