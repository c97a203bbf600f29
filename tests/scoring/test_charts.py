"""Charts: places and marks."""

import pytest

from kikitori.scoring.charts import COLOURS, heat_map, line_chart
from kikitori.scoring.page import Extras, Figure, render_comparison
from tests.scoring.test_report import Checker


def test_lines_lie_where_their_values_are():
    chart = line_chart("WER", "epoch", {"a": [(1, 0.5), (3, 0.1)], "b": [(2, 0.3)]})
    a, b = chart.lines
    assert a.points == ((chart.left, chart.top), (chart.right, chart.bottom))
    assert b.points == (((chart.left + chart.right) / 2, (chart.top + chart.bottom) / 2),)
    assert (a.last, b.last, a.dashed, a.colour, b.colour) == ("0.1", "0.3", False, 0, 1)
    assert [mark for _, mark in chart.y_marks] == ["0.1", "0.2", "0.3", "0.4", "0.5"]
    assert line_chart("WER", "epoch", {"a": [(1, 0.5)], "b": []}) is None
    assert line_chart("WER", "epoch", {"a": [(1, 0.5), (2, 0.5)]}).lines[0].points[0][1] == pytest.approx(122.0)
    many = line_chart("WER", "epoch", {f"{n}": [(1, n), (2, n)] for n in range(COLOURS + 1)})
    assert [line.dashed for line in many.lines] == [*[False] * COLOURS, True]


def test_the_best_of_a_map_is_framed_and_the_worst_is_darkest():
    rates = {("0.1", "1"): 0.3, ("0.2", "1"): 0.2, ("0.1", "2"): 0.4}
    found = heat_map("WER (%)", ("scale", ["0.1", "0.2"]), ("beam", ["1", "2"]), rates)
    assert [(cell.text, cell.shade, cell.best) for cell in found.cells] == [
        ("30.00", 0.5, False),
        ("20.00", 0.0, True),
        ("40.00", 1.0, False),
    ]
    first, right, below = found.cells
    assert (right.x - first.x, right.y - first.y) == (found.cell_width, 0.0)
    assert (below.x - first.x, below.y - first.y) == (0.0, found.cell_height)
    equal = heat_map("WER (%)", ("a", ["1"]), ("b", ["1"]), {("1", "1"): 0.3})
    assert equal.cells[0].shade == 0.0


def test_a_page_with_all_of_them_is_whole():
    rates = {("<1", "1"): 0.3, ("2", "1"): 0.2}
    figures = (
        Figure("Learning", "text", lines=line_chart("WER", "epoch", {"<b>": [(1, 0.5), (3, 0.1)]})),
        Figure("Scales", "text", heat=heat_map("WER (%)", ("scale", ["<1", "2"]), ("beam", ["1"]), rates)),
        Figure("CTC", "text", image="data:image/png;base64,AAAA"),
    )
    extras = Extras(figures, ("data:audio/ogg;base64,AAAA", None), "a: <b>")
    page = render_comparison("study", [], "verdict", None, [], [("one", []), ("two", [])], extras)
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    assert "<b>" not in page.replace("<body>", "")
    assert page.count("<audio") == 1
    assert page.count("<rect") == 2
