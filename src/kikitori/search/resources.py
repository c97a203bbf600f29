"""What joins a recogniser in search, its language model and its label prior: by name, or from its own folder."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kikitori.errors import ModelError
from kikitori.io.model_folder import LEXICON, LM, PHONE_PRIOR, PRIOR, WORD_NGRAM
from kikitori.model.decoder.llm import check_llm
from kikitori.model.folder import load_llm, model_folder
from kikitori.scorers.base import LMScorer, PriorScorer, Scorer, WeightedSum, length_scorer
from kikitori.scorers.language_model import LanguageModel, load_language_model
from kikitori.scorers.ngram import (
    NGramJudge,
    NGramScorer,
    is_ngram,
    label_words,
    load_ngram_judge,
)
from kikitori.scorers.options import LM as LM_SHARE
from kikitori.scorers.options import NGRAM, LMOptions, PriorOptions
from kikitori.scorers.prior import load_prior
from kikitori.search.defaults import own_draft
from kikitori.search.fusion.word_reader import WordReader
from kikitori.search.lexicon.trie import WordModel, word_model
from kikitori.search.options import (
    DelayedFusionSearch,
    DraftSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
)
from kikitori.search.rescore import Judge, LabelPrior, load_label_prior
from kikitori.text.lexicon import read_lexicon
from kikitori.text.ngram.model import load_ngram
from kikitori.text.units import (
    TokenizerUnits,
    differing_labels,
    labels_fingerprint,
    load_units,
    vocabulary_fingerprint,
)


class Partners:
    """The partners of one recogniser; language models are loaded once.

    Args:
        folder: The recogniser's folder, None where it has none.
        units: Its label units.
        device: Where the LM computes.
    """

    def __init__(self, folder: Path | None, units: TokenizerUnits, device: torch.device) -> None:
        self._folder, self._units, self._device = folder, units, device
        self._lms: dict[str, LMScorer] = {}
        self._ngrams: dict[tuple[str, str], NGramScorer] = {}
        self._judges: dict[LMOptions, LanguageModel] = {}
        self._ngram_judges: dict[LMOptions, NGramJudge] = {}
        self._priors: dict[tuple[PriorOptions, LMOptions | None], LabelPrior] = {}
        self._readers: dict[LMOptions, WordReader] = {}
        self._words: dict[tuple[Path, Path, float], WordModel] = {}

    @cached_property
    def draft_search(self) -> DraftSearch:
        """What makes the drafts that the recogniser's LLM reads beside the speech.

        Raises:
            KikitoriError: There is none, or it is wrong (see `own_draft`).
        """
        return own_draft(self._folder)

    def scorer(self, options: ShallowFusionSearch) -> WeightedSum:
        """What judges labels beside the CTC head: the LM, the n-gram and the prior if there are, the length.

        Raises:
            ModelError: The LM is missing, damaged or over other label units; or the prior is, and it is asked for.
        """
        weighted: list[tuple[Scorer[Any], float]] = [*self._fused(options)]
        weighted.append((length_scorer(self._units.size), options.length_scale))
        if (prior := self.prior(options)) is not None:
            weighted.append((PriorScorer(prior), -options.prior_scale))
        return WeightedSum(weighted)

    def prior(self, options: ShallowFusionSearch | DelayedFusionSearch) -> Tensor | None:
        """The label prior, (labels,), None where there is none and none is asked for.

        Raises:
            ModelError: It is missing or damaged, and asked for.
        """
        file = Path(options.prior) if options.prior else self._own(PRIOR)
        if not options.prior_scale and not options.prior and not (file is not None and file.is_file()):
            return None
        if file is None:
            raise ModelError("no label prior is named", where="decoding.prior", remedy="name its file")
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
        own = self._own(LM)
        joins = own is not None and own.is_dir() and options.llm_scale != 0.0
        if options.ngram is None or options.lm is not None or joins:
            found.append((self.lm(options.lm), options.llm_scale))
        if options.ngram is not None:
            found.append((self._ngram(options.ngram, NGRAM), options.ngram_scale))
        return found

    def _ngram(self, file: str, name: str) -> NGramScorer:
        if (file, name) not in self._ngrams:
            model = load_ngram(file)
            self._ngrams[file, name] = NGramScorer(model, label_words(self._units), name=name, where=file)
        return self._ngrams[file, name]

    def lm(self, path_or_id: str | None) -> LMScorer | NGramScorer:
        """A language model over the recogniser's units by folder, run, hub id or n-gram's file; None for its own.

        Raises:
            ModelError: As of `scorer`.
        """
        if path_or_id is not None and is_ngram(path_or_id):
            return self._ngram(path_or_id, LM_SHARE)
        path = model_folder(path_or_id or self._own_lm("decoding.lm"))
        if path not in self._lms:
            self._lms[path] = self._load(path)
        return self._lms[path]

    def judge(self, options: LMOptions) -> LanguageModel:
        """A language model that judges whole texts, over any units.

        Raises:
            ModelError: It is missing or damaged.
        """
        if options not in self._judges:
            self._judges[options] = load_language_model(options, self._device)
        return self._judges[options]

    def any_judge(self, options: LMOptions) -> Judge:
        """As `judge`, which may be an n-gram.

        Raises:
            ModelError: It is missing or damaged.
        """
        if not is_ngram(options.path):
            return self.judge(options)
        if options not in self._ngram_judges:
            self._ngram_judges[options] = load_ngram_judge(options.path, options.text_form)
        return self._ngram_judges[options]

    def prior_judge(self, options: RescoringSearch, name: str) -> LabelPrior:
        """One of the priors that judge whole hypotheses, by name.

        Raises:
            ModelError: It is missing, damaged or over other labels.
        """
        settings = options.priors[name]
        key = settings, None if settings.lm is None else options.lms[settings.lm]
        if key not in self._priors:
            self._priors[key] = load_label_prior(settings, options.lms, self._units, name)
        return self._priors[key]

    def reader(self, options: LMOptions | None) -> WordReader:
        """A language model over any units that judges words as they are completed; None for the recogniser's own.

        Raises:
            ModelError: It is missing, damaged or an n-gram, its cache cannot be forked, or it cannot write the
                recogniser's texts.
        """
        options = options or LMOptions(self._own_lm("decoding.lm.path"))
        if is_ngram(options.path):
            raise ModelError(
                "an n-gram, and delayed fusion takes causal LMs", where=options.path, remedy="use it in rescoring"
            )
        if options not in self._readers:
            lm = self.judge(options)
            check_llm(lm.llm)
            reader = WordReader(lm, self._units)
            reader.check(options.path)
            self._readers[options] = reader
        return self._readers[options]

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
        ngram = self._file(options.ngram, WORD_NGRAM, "decoding.ngram", "estimate it with kikitori ngram")
        key = lexicon, ngram, options.unknown_score
        if key not in self._words:
            self._words[key] = word_model(
                *(read_lexicon(lexicon), phones, load_ngram(ngram)),
                unknown_score=options.unknown_score,
                where=lexicon,
            )
        if not options.prior_scale:
            return self._words[key], None
        prior = self._file(options.prior, PHONE_PRIOR, "decoding.prior", "estimate it with kikitori prior --phones")
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

    def _own_lm(self, option: str) -> str:
        own = self._own(LM)
        if own is None or not own.is_dir():
            raise ModelError(
                "the model folder has no lm/", where=self._folder or option, remedy=f"name one with {option}"
            )
        return str(own)

    def _own(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name
