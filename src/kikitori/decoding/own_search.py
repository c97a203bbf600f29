"""The search of a model folder: its `decoding.yaml`, whose language models and priors lie in the same folder.

Whoever writes a model folder does not choose what else is read: a name that leads out of the folder, or to the hub, is
refused here. On the command line and from Python any may be named.
"""

from dataclasses import replace
from pathlib import Path

from kikitori.decoding.options import (
    CTCBeamSearch,
    Decoding,
    DelayedFusionSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    load_decoding,
)
from kikitori.errors import ModelError

DECODING = "decoding.yaml"


def own_search(folder: Path) -> Decoding | None:
    """The search of a model folder, None where it has no `decoding.yaml`.

    Raises:
        ConfigError: The file is no search.
        ModelError: It names what is not in the folder.
    """
    file = folder / DECODING
    return within(folder, load_decoding(file)) if file.is_file() else None


def within(folder: Path, options: Decoding) -> Decoding:
    """A search with the paths that it names taken from a folder.

    Raises:
        ModelError: One leads out of the folder, or to nothing.
    """

    def inside(path: str) -> str:
        found = (folder / path).resolve()
        if not found.is_relative_to(folder.resolve()) or not found.exists():
            raise ModelError(
                f"it names {path!r}, which is not in the folder",
                where=folder / DECODING,
                remedy="name a path within the folder, or give the search with --decoding",
            )
        return str(found)

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
            first = within(folder, options.first)
            assert isinstance(first, CTCBeamSearch | LexiconSearch)  # noqa: S101
            lms = {name: replace(lm, path=inside(lm.path)) for name, lm in options.lms.items()}
            priors = {name: replace(prior, path=inside(prior.path)) for name, prior in options.priors.items()}
            return replace(options, first=first, lms=lms, priors=priors)
        case _:
            return options
