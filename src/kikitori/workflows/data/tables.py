"""What `kikitori data check` found, as Markdown for people and as values for programs."""

from collections.abc import Mapping, Sequence
from typing import Any

from kikitori.errors import counted
from kikitori.scoring.table import markdown_table
from kikitori.workflows.data.check import CheckedSet, DataCheck, LeftOut

SHOWN = 12
"""Characters or names that a cell lists at most."""


def format_check(found: DataCheck) -> str:
    """The whole report: sets, what is unusual in them, what they share, every row that is left out."""
    sections = [("Sets", markdown_table(_sets(found.sets)))]
    if unusual := _unusual(found):
        sections.append(("Unusual", "\n".join(f"- {line}" for line in unusual)))
    if found.shared:
        sections.append(("Shared with sets kept for measuring", _shared(found)))
    sections.append(("Left out of training", _left_out(found)))
    return "\n\n".join(f"## {title}\n{text}" for title, text in sections)


def check_values(found: DataCheck) -> dict[str, Any]:
    """The same as values, with all names."""
    return {
        "sets": {each.name: _values(each) for each in found.sets},
        "shared": [
            {
                "train": train,
                "kept": kept,
                "texts": list(each.texts),
                "audio": list(each.audio),
                "speakers": list(each.speakers),
            }
            for (train, kept), each in found.shared.items()
        ],
        "left_out": [_row(each) for each in found.left_out],
        "training_stops_at_broken_rows": found.stops,
    }


def _sets(sets: Sequence[CheckedSet]) -> list[list[str]]:
    heading = ["set", "for", "utterances", "hours", "shortest, median, longest (s)", "speakers", "languages"]
    rows = [[*heading, "characters/s", "without text", "left out"]]
    for each in sets:
        known = each.description
        rows.append(
            [
                each.name,
                "training" if each.trained else "measuring",
                str(known.utterances),
                f"{known.seconds / 3600:.2f}",
                ", ".join(f"{seconds:.2f}" for seconds in known.durations),
                str(known.speakers),
                ", ".join(sorted(known.languages)) or "-",
                "-" if known.rate is None else f"{known.rate:.1f}",
                str(known.without_text),
                str(len(each.left_out)),
            ]
        )
    return rows


def _unusual(found: DataCheck) -> list[str]:
    lines = []
    for each in found.sets:
        known = each.description
        if known.unusual:
            rates = [f"{name} ({rate:.1f})" for name, rate in sorted(known.unusual.items(), key=lambda item: -item[1])]
            lines.append(f"{each.name}: {len(rates)} with far more or fewer characters/s than others: {_some(rates)}")
        if known.repeated_ids:
            again = counted(len(known.repeated_ids), "repeated id")
            lines.append(f"{each.name}: {again}: {_some(known.repeated_ids)}")
        if each.cut:
            files = counted(len(each.cut), "file")
            lines.append(f"{each.name}: {files} longer than their only row, read that far: {_some(each.cut)}")
        if each.unknown:
            ordered = sorted(each.unknown.items(), key=lambda item: (-item[1], item[0]))
            shown = _some([f"{character} ({count})" for character, count in ordered])
            lines.append(f"{each.name}: {counted(len(ordered), 'character')} that the {found.unknown_to} lack: {shown}")
    return lines


def _shared(found: DataCheck) -> str:
    rows = [["training", "measuring", "rows with a text in common", "rows with audio in common", "speakers in common"]]
    lines = []
    for (train, kept), each in found.shared.items():
        rows.append([train, kept, *(str(len(names)) for names in (each.texts, each.audio, each.speakers))])
        lines += [f"- {train}: {name}: six words in a row, or all, are in {kept}" for name in each.texts]
        lines += [f"- {train}: {name}: its audio is in {kept}" for name in each.audio]
        if each.speakers:
            lines.append(f"- {train}: speakers who are in {kept} too: {_some(each.speakers)}")
    return "\n".join([markdown_table(rows), *(["", *lines] if lines else [])])


def _left_out(found: DataCheck) -> str:
    rows = found.left_out
    if not rows:
        return "Nothing."
    lines = [f"- {each.set}: {each.utt_id + ': ' if each.utt_id else ''}{each.reason}{_detail(each)}" for each in rows]
    if found.stops:
        lines.insert(0, "Training stops at broken lines and at files that cannot be read: data.on_error is stop.\n")
    return "\n".join(lines)


def _detail(row: LeftOut) -> str:
    return f" ({row.detail})" if row.detail else ""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _values(each: CheckedSet) -> dict[str, Any]:
    known = each.description
    shortest, middle, longest = known.durations
    return {
        "for": "training" if each.trained else "measuring",
        "utterances": known.utterances,
        "hours": known.seconds / 3600,
        "seconds": {"shortest": shortest, "median": middle, "longest": longest},
        "speakers": known.speakers,
        "languages": dict(known.languages),
        "without_text": known.without_text,
        "characters_per_second": known.rate,
        "unusual_characters_per_second": dict(known.unusual),
        "repeated_ids": list(known.repeated_ids),
        "unknown_characters": dict(each.unknown),
        "longer_files": list(each.cut),
        "left_out": len(each.left_out),
    }


def _row(each: LeftOut) -> Mapping[str, str]:
    return {"set": each.set, "id": each.utt_id, "reason": each.reason, "detail": each.detail}
