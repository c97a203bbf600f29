"""Self-contained HTML pages: of an evaluation (summary, frequent substitutions, worst utterances), and of any tables.

Plain rows and aligned examples go in, HTML comes out. A page has no script and loads nothing; all text is escaped.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

Pair = tuple[str | None, str | None]

_CSS = """
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
table{border-collapse:collapse;margin:1rem 0}th,td{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:right}
th:first-child,td:first-child{text-align:left}article{border-top:1px solid #ddd;padding:.75rem 0}p{margin:.25rem 0}
h3{font-size:1rem;margin:0}small{color:#555}del{background:#fdd;color:#a00}ins{background:#dfd;color:#060}
mark{background:#fe9;color:#222;padding:0 .2em}mark del,mark ins{background:none}
"""


@dataclass(frozen=True)
class Example:
    """An utterance to show.

    Attributes:
        title: Set and name of the utterance.
        notes: Error and flags, where there are any.
        pairs: Aligned reference and predicted units; None stands for a missing side.
        separator: What stands between units: a space between words, nothing between characters.
    """

    title: str
    notes: tuple[str, ...]
    pairs: tuple[Pair, ...]
    separator: str

    @property
    def errors(self) -> int:
        """Number of pairs whose sides differ."""
        return sum(reference != prediction for reference, prediction in self.pairs)


@dataclass(frozen=True)
class Section:
    """Tables under a heading.

    Attributes:
        title: The heading.
        text: What they say, in a sentence or two.
        tables: Rows of each table; the first row is its heading.
    """

    title: str
    text: str
    tables: tuple[Sequence[Sequence[str]], ...]


def render_page(
    facts: Iterable[str],
    table: Sequence[Sequence[str]],
    substitutions: Iterable[tuple[tuple[str, str], int]],
    worst: Sequence[Example],
) -> str:
    """Returns the page.

    Args:
        facts: Lines on model, decoding, normalizer and versions.
        table: Summary rows; the first is the heading.
        substitutions: Reference unit, predicted unit and how often, most frequent first.
        worst: Utterances with most errors first.
    """
    confused = [["reference", "prediction", "times"], *([*pair, str(times)] for pair, times in substitutions)]
    return _document(
        "evaluation",
        facts,
        [
            _table(table),
            f"<h2>Most frequent substitutions</h2>\n{_table(confused)}" if len(confused) > 1 else "",
            f"<h2>Utterances with most errors ({len(worst)})</h2>",
            "<p>After normalization: <del>deleted</del>, <ins>inserted</ins>, "
            "<mark><del>reference</del> <ins>prediction</ins></mark> substituted.</p>",
            *(_article(example) for example in worst),
        ],
    )


def render_sections(title: str, facts: Iterable[str], sections: Iterable[Section]) -> str:
    """Returns a page of tables.

    Args:
        title: What it shows, one word in lower case.
        facts: Lines on where it comes from.
        sections: The tables.
    """
    body: list[str] = []
    for section in sections:
        body += [f"<h2>{escape(section.title)}</h2>\n<p>{escape(section.text)}</p>", *map(_table, section.tables)]
    return _document(title, facts, body)


def _document(title: str, facts: Iterable[str], body: Sequence[str]) -> str:
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width">',
            f"<title>kikitori {escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>",
            f"<h1>{escape(title.capitalize())}</h1>",
            f"<p><small>{' · '.join(escape(fact) for fact in facts)}</small></p>",
            *body,
            "</body>\n</html>\n",
        ]
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = []
    for index, row in enumerate(rows):
        tag = "th" if index == 0 else "td"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>")
    return "<table>\n" + "\n".join(lines) + "\n</table>"


def _article(example: Example) -> str:
    notes = "".join(f" · {escape(note)}" for note in example.notes)
    units = example.separator.join(_unit(*pair) for pair in example.pairs)
    head = f"<h3>{escape(example.title)} <small>{example.errors} errors{notes}</small></h3>"
    return f'<article>{head}<p dir="auto">{units}</p></article>'


def _unit(reference: str | None, prediction: str | None) -> str:
    if reference == prediction:
        return escape(reference or "")
    deleted = "" if reference is None else f"<del>{escape(reference)}</del>"
    inserted = "" if prediction is None else f"<ins>{escape(prediction)}</ins>"
    return f"<mark>{deleted} {inserted}</mark>" if deleted and inserted else deleted + inserted
