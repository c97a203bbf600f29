import pytest

from kikitori import loading
from kikitori.errors import ModelError
from kikitori.loading import BUNDLED, find_model


def test_our_models_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "CHECKOUT", tmp_path / "models")
    ours = tmp_path / "models" / "mini-xx"
    assert find_model("mini-xx") == "mini-xx"
    ours.mkdir(parents=True)
    assert find_model("mini-xx") == "mini-xx"  # a folder without a model
    (ours / "config.json").write_text("{}")
    assert find_model("mini-xx") == ours
    assert find_model("someone/mini-xx") == "someone/mini-xx"
    assert find_model(ours) == ours
    assert find_model("tiny-en") == find_model(None) == BUNDLED
    (tmp_path / "mini-xx").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("mini-xx") == "mini-xx"  # the one that lies here


def test_a_run_folder_stands_for_what_it_exported(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert find_model(tmp_path / "run") == tmp_path / "run" / "model"
    assert find_model(tmp_path / "run" / "model") == tmp_path / "run" / "model"


def test_a_run_without_a_model_says_what_to_do(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.yaml", "environment.json"):
        (run / name).touch()
    with pytest.raises(ModelError, match=r"run: the training has not finished, .* kikitori train .*--resume"):
        find_model(run)
    (run / "adapter").mkdir()
    with pytest.raises(ModelError, match="run: it holds an adapter; name its base, with --adapter"):
        find_model(run)
