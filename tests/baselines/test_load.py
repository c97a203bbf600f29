import pytest

from kikitori.baselines import load
from kikitori.model.published.part import PARTS


@pytest.mark.parametrize("name", ["someone/two", "someone/three", "./runs/two", "a/b/two"])
def test_a_hub_id_is_looked_for_among_the_parts_that_lie_here(tmp_path, monkeypatch, name):
    (tmp_path / "two").mkdir()
    monkeypatch.setenv(PARTS, str(tmp_path))
    monkeypatch.setattr(load, "load_transformers", lambda place, **_: place)
    found = load.load_baseline(f"hf:{name}", device="cpu")
    assert found == (str(tmp_path / "two") if name == "someone/two" else name)
