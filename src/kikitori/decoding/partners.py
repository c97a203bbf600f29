"""What joins a recogniser in search, its language model and its label prior: by name, or from its own folder."""

from pathlib import Path
from typing import Any

import torch

from kikitori.decoding.language_model import LanguageModel, load_language_model
from kikitori.decoding.options import LMOptions, ShallowFusionSearch
from kikitori.decoding.prior import PRIOR, load_prior
from kikitori.decoding.scorers import LMScorer, PriorScorer, Scorer, WeightedSum, length_scorer
from kikitori.errors import ModelError
from kikitori.model.folder import load_llm, model_folder
from kikitori.text.units import TokenizerUnits, load_units

LM = "lm"
"""Folder of the language model within a model folder."""


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
        self._judges: dict[LMOptions, LanguageModel] = {}

    def scorer(self, options: ShallowFusionSearch) -> WeightedSum:
        """What judges labels beside the CTC head: the LM, the prior if there is one, the length.

        Raises:
            ModelError: The LM is missing, damaged or over other label units; or the prior is, and it is asked for.
        """
        weighted: list[tuple[Scorer[Any], float]] = [(self.lm(options.lm), options.llm_scale)]
        weighted.append((length_scorer(self._units.size), options.length_scale))
        file = Path(options.prior) if options.prior else self._own(PRIOR)
        if options.prior_scale or options.prior or (file is not None and file.is_file()):
            if file is None:
                raise ModelError("no label prior is named", where="decoding.prior", remedy="name its file")
            weighted.append((PriorScorer(load_prior(file, self._units.size)), -options.prior_scale))
        return WeightedSum(weighted)

    def lm(self, path_or_id: str | None) -> LMScorer:
        """A language model over the recogniser's units by folder, run or hub id; None for its own.

        Raises:
            ModelError: As of `scorer`.
        """
        own = self._own(LM)
        if path_or_id is None and (own is None or not own.is_dir()):
            raise ModelError(
                "the model folder has no lm/", where=self._folder or "decoding.lm", remedy="name one with decoding.lm"
            )
        path = model_folder(path_or_id or str(own))
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

    def _load(self, path: str) -> LMScorer:
        units, labels = load_units(path), self._units.tokenizer.get_vocab()
        others = units.tokenizer.get_vocab()
        different = [label for label, number in labels.items() if others.get(label) != number]
        if different:
            raise ModelError(
                f"other label units than the recogniser's: {len(different)} of {len(labels)} differ",
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

    def _own(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name
