"""Self-contained HTML pages: of an evaluation, of systems side by side, and of any tables.

Plain rows and aligned examples go in, HTML comes out by the Jinja2 templates in `templates/`, which escape all text. A
page has no script and loads nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kikitori.scoring.charts import HeatMap, LineChart

Pair = tuple[str | None, str | None]


@dataclass(frozen=True)
class Example:
    """An utterance to show.

    Attributes:
        notes: Error and warnings, where there are any.
        pairs: Aligned reference and predicted units; None stands for a missing side.
        separator: What stands between units: a space between words, nothing between characters.
    """

    title: str
    notes: list[str]
    pairs: tuple[Pair, ...]
    separator: str

    @property
    def errors(self) -> int:
        """Number of pairs whose sides differ."""
        return sum(reference != prediction for reference, prediction in self.pairs)


@dataclass(frozen=True)
class Section:
    """Tables under a heading, with what they say in a sentence or two.

    Attributes:
        tables: Rows of each table; the first row is its heading.
    """

    title: str
    text: str
    tables: tuple[Sequence[Sequence[str]], ...]


@dataclass(frozen=True)
class Figure:
    """A picture under a heading: a chart that the page draws, or an image.

    Attributes:
        image: PNG as a `data:` address.
    """

    title: str
    text: str
    lines: LineChart | None = None
    heat: HeatMap | None = None
    image: str | None = None


@dataclass(frozen=True)
class Extras:
    """What a page of systems may have beside its tables.

    Attributes:
        figures: Behind the tables.
        players: For each utterance that is shown, its sound as a `data:` address, or None.
        configuration: Text that says how all was made; empty without.
    """

    figures: tuple[Figure, ...] = ()
    players: tuple[str | None, ...] = ()
    configuration: str = ""


PLAIN = Extras()


def render_page(
    facts: Iterable[str],
    table: Sequence[Sequence[str]],
    substitutions: Iterable[tuple[tuple[str, str], int]],
    worst: Sequence[Example],
) -> str:
    """The page of an evaluation: facts, a table (heading first), frequent substitutions and the worst utterances."""
    confused = [[*pair, str(times)] for pair, times in substitutions]
    return _render(
        "evaluation.html.j2", title="evaluation", facts=facts, summary=table, substitutions=confused, worst=worst
    )


def render_sections(title: str, facts: Iterable[str], sections: Iterable[Section]) -> str:
    """A page of tables, with facts on where they come from; the title is one word in lower case."""
    return _render("sections.html.j2", title=title, facts=facts, sections=sections)


def render_comparison(
    title: str,
    facts: Iterable[str],
    verdict: str,
    picture: object,
    sections: Iterable[Section],
    examples: Sequence[tuple[str, Sequence[Example]]],
    extras: Extras = PLAIN,
) -> str:
    """A page of several systems: the verdict first, their picture (or None), tables, and aligned utterances."""
    return _render(
        "comparison.html.j2",
        title=title,
        facts=facts,
        verdict=verdict,
        picture=picture,
        sections=sections,
        examples=examples,
        extras=extras,
    )


def _render(template: str, **values: object) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("kikitori.scoring"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
