"""What a study varies: its cells, and files that are no studies."""

import pytest
import yaml

from kikitori.errors import ConfigError
from kikitori.workflows.study.spec import cells_of, load_study, single_values

PLAIN = {
    "recipe": "recipe.yaml",
    "test": [{"path": "test.jsonl"}],
    "axes": {
        "bridge.stride": [2, 4],
        "frozen": {"nothing": {}, "llm": {"llm.policy": "frozen"}},
        "decoding.search": ["greedy", "joint", "beam"],
    },
}


@pytest.fixture
def study(tmp_path):
    def load(*overrides, **changes):
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(PLAIN | changes, sort_keys=False))
        return load_study(tmp_path / "study.yaml", overrides)

    return load


def test_a_grid_has_all_cells(study):
    cells = cells_of(study(), "x")
    assert len({cell.name for cell in cells}) == 2 * 2 * 3
    assert cells[0].name == "stride=2, frozen=nothing, search=greedy"
    assert cells[-1].settings == {"bridge.stride": 4, "llm.policy": "frozen", "decoding.search": "beam"}


def test_one_at_a_time_changes_one_value(study):
    cells = cells_of(study(design="one_at_a_time", settings={"run.epochs": 3, "bridge.stride": 1}), "x")
    assert [cell.name for cell in cells] == ["base", "stride=4", "frozen=llm", "search=joint", "search=beam"]
    assert cells[2].settings == {
        "run.epochs": 3,
        "bridge.stride": 2,
        "llm.policy": "frozen",
        "decoding.search": "greedy",
    }


def test_one_axis_of_names_names_the_cells(study):
    named = study(design="one_at_a_time", axes={"system": {"greedy": {}, "joint": {"decoding.search": "joint"}}})
    assert [cell.name for cell in cells_of(named, "x")] == ["greedy", "joint"]


def test_a_list_names_its_cells(study):
    found = study(design="list", cells=[{"frozen": "llm"}, {"bridge.stride": 4, "decoding.search": "beam"}])
    assert [tuple(cell.values.values()) for cell in cells_of(found, "x")] == [
        ("2", "llm", "greedy"),
        ("4", "nothing", "beam"),
    ]
    for cell, message in (({"frozn": "llm"}, "did you mean 'frozen'"), ({"frozen": "lm"}, "did you mean 'llm'")):
        with pytest.raises(ConfigError, match=message):
            cells_of(study(design="list", cells=[cell]), "x")


def test_each_value_stands_alone_once(study):
    assert len(single_values(study())) == 2 + 2 + 3


def test_overrides_are_settings_of_cells_and_starts(study):
    found = study("data_root=here", "decoding.beam=4", starts={"lm": {"recipe": "lm.yaml"}})
    assert found.settings == {"data_root": "here", "decoding.beam": 4}
    assert found.starts["lm"].settings == {"data_root": "here"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": {}}, "unexpected key"),
        ({"axes": {}}, "axes"),
        ({"axes": {"bridge.stride": []}}, "has no values"),
        ({"axes": {"bridge.stride": [2, 2]}}, "one of them twice"),
        ({"seeds": [1, 1]}, "a seed is named twice"),
        ({"design": "list"}, "design 'list' and cells"),
        ({"cells": [{}]}, "design 'list' and cells"),
        ({"test": []}, "test"),
        ({"test": [{"path": "a.jsonl", "share": 0.5}, {"path": "a.jsonl"}]}, "named twice"),
        ({"normalizers": ["wisper"]}, "unknown normalizer"),
        ({"budget_hours": 0.0}, "budget_hours"),
    ],
)
def test_what_is_no_study(study, changes, message):
    with pytest.raises(ConfigError, match=message):
        study(**changes)
