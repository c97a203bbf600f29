"""N-best lists on which the scales of a search are tuned: with the scores that it weighs, in the order of CTC."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kikitori.errors import ConfigError, ModelError
from kikitori.io.model_folder import LM as LM_FOLDER
from kikitori.io.model_folder import PRIOR as PRIOR_FILE
from kikitori.io.model_folder import heads_file
from kikitori.recognizer import Recognizer
from kikitori.scorers.options import (
    CTC,
    INTERNAL_LM,
    LENGTH,
    LM,
    NGRAM,
    PHONES,
    PRIOR,
    SPEECH_LLM,
    Scorers,
    with_scales,
)
from kikitori.scoring.predictions import merged_lists
from kikitori.scoring.report import Prediction
from kikitori.search.options import (
    CTCBeamSearch,
    DelayedFusionSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
)
from kikitori.search.options.two_pass import WIDE
from kikitori.text.units import TokenizerUnits
from kikitori.types import Utterance
from kikitori.workflows.evaluate import Progress, Searching, evaluate
from kikitori.workflows.rescore import Sets, stored_scores, with_named_scores

Fusion = ShallowFusionSearch | DelayedFusionSearch
Tunable = RescoringSearch | LexiconSearch | Fusion
"""Searches for which n-best lists show what their scales are worth."""
LEXICON: tuple[str, ...] = (NGRAM, LENGTH)
"""Scorers of lexicon search on which these have scores; its prior is part of every frame."""
LEXICON_NBEST = 200
"""Hypotheses of a lexicon search on which its scales are tuned."""


def scorer_names(options: Tunable, stored: Collection[str], folder: Path | None) -> list[str]:
    """The scorers of a search beside CTC: what it or the lists name, and what lies in the recogniser's folder."""
    match options:
        case RescoringSearch():
            return [*options.first_scores, *options.scorers, *stored]
        case LexiconSearch():
            return [*LEXICON]
    there = {*stored, *_in_folder(folder), *(name for name, each in options.scorers.items() if each.path is not None)}
    lm = LM in there or options.scorer(NGRAM).path is None
    ngram = options.scorer(NGRAM).path is not None or (NGRAM in stored and NGRAM in options.SCALES)
    prior = PRIOR in there or options.scale(PRIOR) != 0.0
    return [name for name, joins in ((LM, lm), (NGRAM, ngram), (PRIOR, prior), (LENGTH, True)) if joins]


def with_tuned_scales(options: Tunable, scales: Mapping[str, float]) -> Tunable:
    """A search with other scales; what has none, or 0, counts 0.

    Rescoring then has no need of a language model or a prior without a scale either.
    """
    match options:
        case RescoringSearch():
            return _weighing(options, {name: scale for name, scale in scales.items() if scale != 0.0})
        case LexiconSearch():
            names = LEXICON
        case _:
            names = (LM, *options.scorers)
    found = dict.fromkeys(names, 0.0) | {name: scale for name, scale in scales.items() if name != CTC}
    return replace(options, scorers=with_scales(options.scorers, found))


def list_search(options: Tunable, names: Collection[str], folder: Path | None) -> RescoringSearch:
    """The search whose n-best lists are in the order of CTC, and have the named scores that another search weighs.

    The CTC beam of a one-pass search is widened to that of rescoring; the lists of a lexicon search are its own. The
    recogniser's folder may hold a language model or a prior that the options do not name.

    Raises:
        ModelError: One of them is not named, and not in that folder.
    """
    scales = dict.fromkeys(names, 0.0)
    match options:
        case RescoringSearch():
            return _weighing(options, scales)
        case LexiconSearch():
            if other := [name for name in names if name not in LEXICON]:
                what, where = "lexicon search has no score of it", f"decoding.scorers.{other[0]}"
                remedy = f"tune {NGRAM} and {LENGTH} here, and the rest for --decoding rescoring"
                raise ModelError(what, where=where, remedy=remedy)
            first = replace(options, nbest=max(LEXICON_NBEST, options.nbest))
            return RescoringSearch(first=first, scorers=with_scales({}, scales))
    beam, nbest = max(WIDE.beam, options.beam), max(WIDE.nbest, options.nbest)
    return RescoringSearch(
        first=CTCBeamSearch(beam=beam, nbest=nbest, pruning=options.pruning),
        scorers=with_scales(_with_paths(options, names, folder), scales),
    )


def list_searches(options: Tunable, names: Collection[str], folder: Path | None) -> list[Tunable]:
    """The searches whose n-best lists are joined to tune another search on.

    What fusion finds beyond the lists of `list_search` joins them, with the scales it has.

    Raises:
        ModelError: A language model or a prior is missing.
    """
    names = [name for name in names if name != CTC]
    lists = list_search(options, names, folder)
    match options:
        case RescoringSearch() | LexiconSearch():
            return [lists]
    # Named, so that there is a score even of what counts nothing yet.
    scorers = {**options.scorers, **_with_paths(options, names, folder)}
    return [lists, replace(options, nbest=options.beam, scorers=scorers)]


def lists_from_speech(
    recognizer: Recognizer,
    utterances: Mapping[str, Sequence[Utterance]],
    searches: Sequence[Tunable],
    *,
    batch_size: int = 8,
    progress: Progress = lambda _: None,
) -> dict[str, list[Prediction]]:
    """The joined n-best lists of `list_searches`; `progress` gets the utterances just done, in each search."""
    return merged_lists(
        [
            evaluate(Searching(recognizer, search), utterances, batch_size=batch_size, progress=progress)
            for search in searches
        ]
    )


def with_missing_scores(
    sets: Sets,
    options: Tunable,
    names: Collection[str],
    units: TokenizerUnits | None = None,
    device: str = "cpu",
    folder: Path | None = None,
) -> Sets:
    """N-best lists with those scores that a search weighs and that they have not; the same lists if they have all.

    Without the units of the hypotheses' labels, language models go by their texts.

    Raises:
        ConfigError: The score of the speech LLM or of phones is missing, which wants speech.
        ModelError: A language model or a prior is missing.
    """
    stored = stored_scores(sets)
    missing = [name for name in names if name not in (CTC, LENGTH, *stored)]
    for name in (SPEECH_LLM, INTERNAL_LM, PHONES):
        if name in missing:
            what = "the lists do not have its score, and it is there with the recogniser alone"
            raise ConfigError(what, where=f"scale of {name}", remedy="name speech with --data")
    if not stored or not missing:
        return sets
    return with_named_scores(sets, list_search(options, missing, folder), units, device)


def _weighing(options: RescoringSearch, scales: Mapping[str, float]) -> RescoringSearch:
    """Rescoring with what has a scale alone, and the language models whose labels its priors count."""
    counted = {each.lm: 0.0 for name, each in options.priors.items() if name in scales and each.lm is not None}
    wanted = {**counted, **scales}
    kept = {name: each for name, each in options.scorers.items() if name in wanted}
    return replace(options, scorers=with_scales(kept, wanted))


def _with_paths(options: Fusion, names: Collection[str], folder: Path | None) -> Scorers:
    """Scorers of a search by name, with the paths of those that lie in the recogniser's folder.

    Raises:
        ModelError: One has none.
    """
    found: Scorers = {}
    for name in names:
        scorer = options.scorer(name)
        path = scorer.path or _in_folder(folder).get(name)
        if name != LENGTH and path is None:
            where, remedy = f"decoding.scorers.{name}.path", "name it there, or the recogniser's folder with --model"
            raise ModelError("nothing is named, and nothing lies in the model folder", where=where, remedy=remedy)
        found[name] = replace(scorer, path=path)
    return found


def _in_folder(folder: Path | None) -> dict[str, str]:
    """Scorers that lie in the recogniser's folder."""
    files = {} if folder is None else {LM: heads_file(folder, LM_FOLDER), PRIOR: heads_file(folder, PRIOR_FILE)}
    return {name: str(file) for name, file in files.items() if file.exists()}
