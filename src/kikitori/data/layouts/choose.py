"""Which layout a data set has: the one that is named, or the one of which something lies there."""

from pathlib import Path

from kikitori.data.layouts import hugging_face, kaldi, lhotse, tables, webdataset
from kikitori.data.layouts.base import Columns, Layout
from kikitori.data.layouts.corpora import common_voice, csj, jsut, librispeech, reazonspeech
from kikitori.errors import ConfigError, DataError
from kikitori.io.config import did_you_mean

HUGGING_FACE = "hugging-face"
LAYOUTS: dict[str, Layout] = {
    "kaldi": kaldi,
    HUGGING_FACE: hugging_face,
    "lhotse": lhotse,
    "webdataset": webdataset,
    "common-voice": common_voice,
    "librispeech": librispeech,
    "jsut": jsut,
    "csj": csj,
    "reazonspeech": reazonspeech,
    "table": tables,
}
AUDIO_COLUMN = (HUGGING_FACE, "table")
TEXT_COLUMN = (HUGGING_FACE, "table", "webdataset")


def choose_layout(source: Path, name: str | None) -> tuple[str, str, Layout]:
    """The name of a layout, what of it lies at a path, and the layout.

    Raises:
        ConfigError: There is no layout of that name, or several may be meant.
        DataError: Nothing lies there, or nothing of that layout.
    """
    if name is not None and name not in LAYOUTS:
        guess = did_you_mean(name, [*LAYOUTS])
        remedy = f"did you mean '{guess}'?" if guess else f"one of {', '.join(LAYOUTS)}"
        raise ConfigError(f"there is no layout '{name}'", where="--from", remedy=remedy)
    if not source.exists():
        raise DataError("no such file or folder", where=source, remedy="check the path")
    asked = {name: LAYOUTS[name]} if name is not None else LAYOUTS
    found = [(each, seen, layout) for each, layout in asked.items() if (seen := layout.evidence(source)) is not None]
    if not found:
        known = name or "a layout that is known"
        remedy = f"name the data set's folder or file, or its layout with --from ({', '.join(LAYOUTS)})"
        raise DataError(f"nothing of {known} lies there", where=source, remedy=remedy)
    distinct = [each for each in found if each[0] != "table"] or found  # what is known better than a table
    if len(distinct) > 1:
        names = " or ".join(each for each, _, _ in distinct)
        raise ConfigError(f"may be {names}", where=source, remedy="say which with --from")
    return distinct[0]


def check_columns(name: str, columns: Columns) -> None:
    """Refuses names of columns for a layout whose columns are fixed.

    Raises:
        ConfigError: One is named for such a layout.
    """
    for option, column, known in (
        ("--audio-column", columns.audio, AUDIO_COLUMN),
        ("--text-column", columns.text, TEXT_COLUMN),
    ):
        if column is not None and name not in known:
            raise ConfigError(
                f"is of no use for {name}", where=option, remedy=f"it names a column of {', '.join(known)}"
            )
