"""Which search, where a model folder has its own: its `decoding.yaml`, whose partners lie in the same folder.

Whoever writes a model folder does not choose what else is read: a name that leads out of the folder, or to the hub, is
refused here. On the command line and from Python any may be named.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kikitori.errors import ModelError
from kikitori.io.config import merge_yaml
from kikitori.io.model_folder import DECODING, DRAFT, resolve, settings_file
from kikitori.search.options import (
    SEARCHES,
    CTCBeamSearch,
    Decoding,
    DelayedFusionSearch,
    DraftSearch,
    GreedySearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    SpeculativeSearch,
    load_decoding,
    with_overrides,
)


def named_search(name_or_yaml: str, folder: Path | None, overrides: Sequence[str] = ()) -> Decoding:
    """The search that a name or a YAML file stands for, with overrides such as `decoding.max_labels=50` applied.

    The name of the folder's own search means that, with the options of `decoding.yaml`; any other name the defaults of
    its search. A YAML file means what it says.

    Args:
        name_or_yaml: Name or file.
        folder: The model folder; None where there is none.
        overrides: Changes to the options.

    Raises:
        ConfigError: No such search or file, or an option that does not fit.
        ModelError: The folder's own search is meant, and names what is not in the folder.
    """
    # Whatever else its file says does not matter to other searches, which are the way out where it is wrong.
    if folder is not None and name_or_yaml in SEARCHES and _own_name(folder) == name_or_yaml:
        own = own_search(folder)
        assert own is not None  # noqa: S101
        return with_overrides(own, overrides)
    return load_decoding(name_or_yaml, overrides)


def own_search(folder: Path) -> Decoding | None:
    """The search of a model folder, None where it has no `decoding.yaml`.

    Raises:
        ConfigError: The file is no search.
        ModelError: It names what is not in the folder, or the folder holds what is no plain file.
    """
    file = settings_file(folder, DECODING)
    return None if file is None else within(folder, load_decoding(file), DECODING)


def own_draft(folder: Path | None) -> DraftSearch:
    """The search of a model folder whose drafts its LLM reads beside the speech (`SpeechLLMConfig.show_draft`).

    Raises:
        ConfigError: The file is no search.
        ModelError: As of `own_search`, or there is none, or it is a search that makes no drafts.
    """
    file = None if folder is None else settings_file(folder, DRAFT)
    if folder is None or file is None:
        raise ModelError(f"the LLM reads drafts, and there is no {DRAFT}", where=folder, remedy="copy the folder again")
    options = within(folder, load_decoding(file), DRAFT)
    if not isinstance(options, DraftSearch):
        what = f"'{options.search}' makes no drafts"
        raise ModelError(what, where=file, remedy="use lexicon, ctc_beam or ctc_greedy")
    return options


def within(folder: Path, options: Decoding, name: str) -> Decoding:
    """A search with the paths that it names taken from a folder.

    Args:
        folder: The folder.
        options: The search.
        name: Name of the file that holds it.

    Raises:
        ModelError: One leads out of the folder, or to nothing.
    """

    def inside(path: str) -> str:
        return str(resolve(folder, path, name))

    match options:
        case ShallowFusionSearch():
            return replace(
                options,
                lm=options.lm and inside(options.lm),
                prior=options.prior and inside(options.prior),
                ngram=options.ngram and inside(options.ngram),
            )
        case DelayedFusionSearch():
            lm = None if options.lm is None else replace(options.lm, path=inside(options.lm.path))
            return replace(options, lm=lm, prior=options.prior and inside(options.prior))
        case LexiconSearch():
            return replace(
                options,
                lexicon=options.lexicon and inside(options.lexicon),
                ngram=options.ngram and inside(options.ngram),
                prior=options.prior and inside(options.prior),
            )
        case RescoringSearch():
            first = within(folder, options.first, name)
            assert isinstance(first, CTCBeamSearch | LexiconSearch)  # noqa: S101
            lms = {name: replace(lm, path=inside(lm.path)) for name, lm in options.lms.items()}
            priors = {name: replace(prior, path=inside(prior.path)) for name, prior in options.priors.items()}
            return replace(options, first=first, lms=lms, priors=priors)
        case SpeculativeSearch(draft=LexiconSearch() as words):
            draft = within(folder, words, name)
            assert isinstance(draft, LexiconSearch)  # noqa: S101
            return replace(options, draft=draft)
        case _:
            return options


def _own_name(folder: Path) -> object:
    file = settings_file(folder, DECODING)
    return None if file is None else merge_yaml(file).get("search", GreedySearch.search)
