"""`kikitori data check` as it is called."""

import json

import pytest

from kikitori.cli.common import SOME_FAILED
from tests.commands import call, one_line
from tests.train.helpers import acoustic_recipe, text_recipe, write_corpus, write_recipe


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path, [{"audio_filepath": "gone.wav", "duration": 1.0, "text": "a", "split": "train"}])


def test_manifests_and_recipes(corpus, tmp_path):
    result = call("data", "check", corpus)
    assert result.exit_code == SOME_FAILED
    assert f"- {tmp_path.name}/manifest.jsonl:train: gone.wav: audio file missing" in result.stdout
    recipe = write_recipe(tmp_path / "r.yaml", tmp_path, acoustic_recipe())
    result = call("data", "check", "--recipe", recipe, "data.min_seconds=1.2", "--json")
    assert result.exit_code == SOME_FAILED
    values = json.loads(result.stdout)
    assert [each["reason"] for each in values["left_out"]] == ["shorter than 1.2 s"] * 5
    assert values["training_stops_at_broken_rows"]
    result = call("data", "check", f"{corpus}:dev")
    assert result.exit_code == 0
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "data check: no manifest given; name one, or a recipe with --recipe"),
        (("MANIFEST", "data.min_seconds=1"), "data.min_seconds=1: an override of what; name a recipe with --recipe"),
        (("no.jsonl",), "no.jsonl: no such manifest; check the path or data_root"),
        (("MANIFEST:eval",), "no usable row of split 'eval'"),
        (("--recipe", "TEXT"), "--recipe: it trains on text alone; name a recipe with data.train"),
        (("--recipe", "SPEECH", "data.min=1"), "data.min"),
    ],
)
def test_wrong_calls(corpus, tmp_path, arguments, line):
    names = {
        "MANIFEST": f"{corpus}",
        "MANIFEST:eval": f"{corpus}:eval",
        "TEXT": f"{write_recipe(tmp_path / 't.yaml', tmp_path, text_recipe())}",
        "SPEECH": f"{write_recipe(tmp_path / 's.yaml', tmp_path, acoustic_recipe())}",
    }
    assert line in one_line(call("data", "check", *(names.get(each, each) for each in arguments)))
