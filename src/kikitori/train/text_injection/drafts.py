"""Drafts in training: texts of a first search on the posteriors of the heads, which an LLM reads beside the speech.

The drafts of training must be about as wrong as those of speech that the heads have never seen; an LLM that always saw
right ones would only learn to copy. Hence they are made of augmented speech (or of simulated posteriors) in every step
anew.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.errors import ConfigError
from kikitori.io.model_folder import DRAFT, LEXICON, PHONE_PRIOR, WORD_NGRAM
from kikitori.model.encoder import EncoderOutput
from kikitori.model.folder import LoadedModel
from kikitori.scorers.options import NGRAM, PHONES, PRIOR
from kikitori.search.batch import EncodedBatch
from kikitori.search.ctc.run import first_pass
from kikitori.search.lexicon.search import lexicon_search
from kikitori.search.options import DraftSearch, as_draft_search, decoding_yaml, load_decoding
from kikitori.search.resources import ExternalModels
from kikitori.text.units import TokenizerUnits
from kikitori.text.words import join_words

CPU = torch.device("cpu")


@dataclass(frozen=True, eq=False)
class Drafter:
    """Makes drafts for one recogniser by a first search, which finds its files among the external models."""

    search: DraftSearch
    external_models: ExternalModels

    @torch.no_grad()
    def of_speech(self, loaded: LoadedModel, encoded: EncoderOutput) -> list[list[int]]:
        """Drafts of a batch, as label units, by the recogniser as it is now."""
        batch = EncodedBatch(loaded, self.external_models, (), encoded)
        return batch.encode_texts(first_pass(batch, self.search))

    def of_phones(
        self, phones: Sequence[str], units: TokenizerUnits, language: str
    ) -> Callable[[NDArray[np.float32]], list[int]]:
        """What makes a draft, as label units, of the log-probabilities (outputs, phones + 1) of a phone head.

        Raises:
            ConfigError: The search does not read phones.
        """
        search = self.search
        if search.search != "lexicon":
            what = f"'{search.search}' reads no phones"
            raise ConfigError(what, where="prompt.draft", remedy="simulated phones need lexicon")
        options = replace(search, nbest=1)
        words, prior = self.external_models.words(options, phones)

        def draft(log_probs: NDArray[np.float32]) -> list[int]:
            batch, lengths = torch.from_numpy(log_probs)[None], torch.tensor([len(log_probs)])
            best = lexicon_search(batch, lengths, words, options, prior)[0][0]
            return units.encode(join_words([words.words[word] for word in best.labels], language))

        return draft

    def save(self, directory: Path) -> None:
        """Writes `draft.yaml` into a model folder, with the files that it names beside it."""
        search = self.search
        if search.search == "lexicon":
            names = {PHONES: LEXICON, NGRAM: WORD_NGRAM, PRIOR: PHONE_PRIOR}
            scorers = {
                name: replace(scorer, path=_copied(scorer.path, directory, names[name])) if scorer.path else scorer
                for name, scorer in search.scorers.items()
            }
            search = replace(search, scorers=scorers)
        (directory / DRAFT).write_text(decoding_yaml(search), encoding="utf-8")


def _copied(file: str | None, directory: Path, own: str) -> str | None:
    """Copies a file under the name by which it is found there; gives another name where it is of another format."""
    if file is None:
        return None
    name = own if file.endswith(Path(own).suffix) else Path(file).name
    shutil.copyfile(file, directory / name)
    return None if name == own else name


def load_drafter(path: str, units: TokenizerUnits) -> Drafter:
    """The drafter of a recipe's `prompt.draft`, a YAML file that names what its search needs.

    Raises:
        ConfigError: It is no search that makes drafts.
    """
    options = load_decoding(path)
    if (search := as_draft_search(options)) is None:
        what = f"'{options.search}' makes no drafts"
        raise ConfigError(what, where=path, remedy="use lexicon, ctc_beam or ctc_greedy")
    return Drafter(search, ExternalModels(None, units, CPU))


def own_drafter(folder: Path, units: TokenizerUnits) -> Drafter:
    """The drafter of a model folder.

    Raises:
        KikitoriError: It has none, or a wrong one (see `default_draft_search`).
    """
    models = ExternalModels(folder, units, CPU)
    return Drafter(models.draft_search, models)
