"""`kikitori tune`: the scales of a search with the fewest word errors on n-best lists, from a file or from speech.

Lists → the scores that the search weighs → word errors at every point → `decoding.yaml`, a table, a picture.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kikitori.errors import ConfigError
from kikitori.io.files import write_text
from kikitori.io.model_folder import DECODING
from kikitori.scorers.options import CTC, INTERNAL_LM, LENGTH, LM, NGRAM, PRIOR, SPEECH_LLM
from kikitori.scoring.report import build_report, write_report
from kikitori.scoring.table import text_table
from kikitori.scoring.tuning.grids import GRIDS, LM_GRID, Grid, check_grids
from kikitori.scoring.tuning.heat_map import draw_heat_map
from kikitori.scoring.tuning.scales import Lists, Tuned, plane, read_lists, tune
from kikitori.search.options import (
    Decoding,
    DelayedFusionSearch,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
    decoding_yaml,
)
from kikitori.workflows.machine.conditions import versions
from kikitori.workflows.rescore import Sets
from kikitori.workflows.tuning.lists import Tunable, scorer_names, with_tuned_scales

TABLE, PICTURE = "tuning.json", "tuning.png"


@dataclass(frozen=True, eq=False)
class Tuning:
    """A search with its best scales, the grids by the name of the scorer, and the lists that these were tried on."""

    options: Tunable
    grids: dict[str, Grid]
    lists: Lists
    tuned: Tuned


def check_tunable(options: Decoding) -> Tunable:
    """The search, if n-best lists of CTC show what its scales are worth.

    Raises:
        ConfigError: They do not.
    """
    match options:
        case RescoringSearch() | LexiconSearch() | ShallowFusionSearch() | DelayedFusionSearch():
            return options
    remedy = "use --decoding rescoring, lexicon, shallow_fusion or delayed_fusion"
    raise ConfigError(f"'{options.search}' has no scales", where="--decoding", remedy=remedy)


def chosen_grids(
    options: Tunable, given: Mapping[str, Grid], stored: Sequence[str] = (), folder: Path | None = None
) -> dict[str, Grid]:
    """The scales to try by the name of their scorer, CTC's first; without those that are held at 0.

    Beside the search's own scorers count scores that n-best lists have brought along, and a prior in the recogniser's
    folder. What is not given is tried as `GRIDS` says.

    Raises:
        ConfigError: A scorer that the search does not know, a scale that it does not take, nothing to tune, too much.
    """
    names, usual = scorer_names(options, stored, folder), GRIDS
    if options.search == "rescoring":
        known = (*options.first_scores, *options.scorers, LENGTH, SPEECH_LLM, INTERNAL_LM)
        usual = {**GRIDS, **dict.fromkeys(options.priors, GRIDS[PRIOR])}
        remedy = "name it with decoding.scorers.{0}.path, or leave it out with --scale {0}=0"
    else:
        known, remedy = (LM, NGRAM, PRIOR, LENGTH), "tune it for --decoding rescoring"
    grids = {CTC: GRIDS[CTC]} | {name: given.get(name, usual.get(name, LM_GRID)) for name in [*names, *given]}
    grids = {name: grid for name, grid in grids.items() if grid != Grid(0.0, 0.0)}
    for name in grids:
        if name not in (CTC, *known):
            what = f"no such scorer in this search (there are {', '.join(known)})"
            raise ConfigError(what, where=f"scale of {name}", remedy=remedy.format(name))
    if options.search == "lexicon" and NGRAM in grids and grids[NGRAM].low < 0.0:
        raise ConfigError("in lexicon search it has to be 0 or above", where=f"scale of {NGRAM}")
    if all(grid.size == 1 for grid in grids.values()):
        remedy = "name language models among the scorers, or a grid such as --scale length=-1:3:0.5"
        raise ConfigError("there is no scale to tune", where="--decoding", remedy=remedy)
    check_grids(grids)
    return grids


def chosen_axes(grids: Mapping[str, Grid], axes: Sequence[str] = ()) -> list[str]:
    """The one or two scales of the picture: those that are named, or the first that are tuned.

    Raises:
        ConfigError: One is not tuned, or there are more than two.
    """
    free = [name for name, grid in grids.items() if grid.size > 1]
    for name in axes:
        if name not in free:
            raise ConfigError(f"'{name}' is not tuned", where="--axes", remedy=f"tuned are {', '.join(free)}")
    if len(axes) > 2 or len({*axes}) < len(axes):
        raise ConfigError("a picture has two different axes", where="--axes", remedy="name two, such as lm,prior")
    return [*axes] or free[:2]


def tune_scales(sets: Sets, options: Tunable, grids: Mapping[str, Grid]) -> Tuning:
    """The scales of a search with the fewest word errors on n-best lists that have its scores.

    Raises:
        ConfigError: The grids have too many points.
        DataError: There is no list, no reference, or a hypothesis without one of the scores.
    """
    lists = read_lists(sets, [*grids])
    tuned = tune(lists, grids)
    return Tuning(with_tuned_scales(options, tuned.scales), dict(grids), lists, tuned)


def write_lists(folder: Path, sets: Sets, *, model: str) -> None:
    """Writes n-best lists that were made here, with their report: tuned again, they need no model.

    Raises:
        DataError: A file cannot be written.
    """
    report = build_report(sets, normalizer=None, decoding=RescoringSearch().search, model=model, versions=versions())
    write_report(folder, report, sets)


def write_tuning(folder: Path, tuning: Tuning, axes: Sequence[str], source: str) -> bool:
    """Writes `decoding.yaml`, `tuning.json` with all points, and `tuning.png`; False without the picture (matplotlib).

    The first line of `decoding.yaml` names the source; axes are the scales of the picture.

    Raises:
        DataError: A file cannot be written.
    """
    lists, tuned = tuning.lists, tuning.tuned
    rate = f"{lists.rate(tuned.errors):.4f}"
    name = " ".join(source.split())
    comment = f"# Scales by kikitori tune on {name}: WER {rate}, with CTC alone {lists.rate(tuned.unscaled):.4f}.\n"
    write_text(folder / DECODING, comment + decoding_yaml(tuning.options))
    write_text(folder / TABLE, json.dumps(_table(tuning, source), ensure_ascii=False) + "\n")
    rates = np.vectorize(lists.rate, otypes=[float])(plane(lists, tuned, tuning.grids, axes))
    values = {name: tuning.grids[name].values for name in axes}
    others = [f"{name} {scale:g}" for name, scale in tuned.scales.items() if name not in (CTC, *axes)]
    title = ", ".join([f"WER {100 * lists.rate(tuned.errors):.2f} % at the mark", *others])
    return draw_heat_map(folder / PICTURE, values, rates, [tuned.scales[name] for name in axes], title)


def format_tuning(tuning: Tuning) -> str:
    """What was found and how flat it is, as aligned plain text tables; rates are fractions."""
    lists, tuned = tuning.lists, tuning.tuned
    rows = [["", "errors", "WER"]]
    for name, errors in (
        ("CTC alone", tuned.unscaled),
        ("first of each list", lists.first),
        ("tuned", tuned.errors),
        ("best of each list", lists.oracle),
    ):
        rows.append([name, str(errors), f"{lists.rate(errors):.4f}"])
    scales = [["scale", "tuned", "WER a step lower", "WER a step higher"]]
    for name, scale in tuned.scales.items():
        sides = tuned.neighbours.get(name, (None, None))
        scales.append([name, f"{scale:g}", *("-" if side is None else f"{lists.rate(side):.4f}" for side in sides)])
    flat = f"{100 * tuned.flat:.0f} % of the {len(tuned.points)} points have at most 1 % more errors"
    return f"{text_table(rows)}\n\n{text_table(scales)}\n{flat}"


def _table(tuning: Tuning, source: str) -> dict[str, Any]:
    lists, tuned = tuning.lists, tuning.tuned

    def counted(errors: int | None) -> dict[str, Any] | None:
        return None if errors is None else {"errors": errors, "wer": lists.rate(errors)}

    return {
        "source": source,
        "search": tuning.options.search,
        "utterances": lists.utterances,
        "words": lists.words,
        "ctc": counted(tuned.unscaled),
        "first": counted(lists.first),
        "oracle": counted(lists.oracle),
        "tuned": {"scales": tuned.scales, **(counted(tuned.errors) or {})},
        "neighbours": {
            name: {"lower": counted(lower), "higher": counted(higher)}
            for name, (lower, higher) in tuned.neighbours.items()
        },
        "flat": tuned.flat,
        "edges": list(tuned.edges),
        "grid": {
            "columns": [*lists.names, "errors"],
            "points": [
                [*scales, errors]
                for scales, errors in zip(tuned.points.tolist(), tuned.point_errors.tolist(), strict=True)
            ],
        },
    }
