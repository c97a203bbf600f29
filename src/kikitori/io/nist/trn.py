"""`trn`: a text a line, with the id of its utterance in brackets behind it."""

import re
from collections.abc import Mapping
from pathlib import Path

from kikitori.errors import DataError
from kikitori.io.files import write_text
from kikitori.io.nist.lines import REMEDY, numbered_lines, one_field, plain

_LINE = re.compile(r"(?P<text>.*)\((?P<id>[^()]+)\)")


def read_trn(path: Path) -> dict[str, str]:
    """Texts by the ids of their utterances.

    Raises:
        DataError: The file cannot be read, a line is none of `trn`, or an id comes twice; the line is named.
    """
    texts: dict[str, str] = {}
    for where, line in numbered_lines(path):
        found = _LINE.fullmatch(line)
        if found is None:
            raise DataError("no id in brackets at its end", where=where, remedy=REMEDY)
        utt_id = found["id"].strip()
        if utt_id in texts:
            raise DataError(f"'{utt_id}' comes twice", where=where, remedy="leave one out")
        texts[utt_id] = plain(found["text"], where)
    return texts


def write_trn(path: Path, texts: Mapping[str, str]) -> None:
    """Writes texts by the ids of their utterances, in which white space and brackets become `_`.

    Raises:
        DataError: Two ids are then the same, a text has alternatives in braces, or the file cannot be written.
    """
    lines: dict[str, str] = {}
    for utt_id, text in texts.items():
        name = one_field(utt_id)
        if name in lines:
            raise DataError("two utterances have this id", where=f"{path}: {name}", remedy="give them ids of their own")
        lines[name] = f"{plain(text, utt_id)} ({name})\n".lstrip()
    write_text(path, "".join(lines.values()))
