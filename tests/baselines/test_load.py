import pytest

from kikitori.baselines import load
from kikitori.errors import ConfigError
from kikitori.model.published.part import PARTS


@pytest.mark.parametrize("name", ["someone/two", "someone/three", "./runs/two", "a/b/two"])
def test_a_hub_id_is_looked_for_among_the_parts_that_lie_here(tmp_path, monkeypatch, name):
    (tmp_path / "two").mkdir()
    monkeypatch.setenv(PARTS, str(tmp_path))
    monkeypatch.setattr(load, "load_transformers", lambda place, **_: place)
    found = load.load_baseline(f"hf:{name}", device="cpu")
    assert found == (str(tmp_path / "two") if name == "someone/two" else name)


def test_transformers_have_no_int8(tmp_path):
    with pytest.raises(ConfigError, match="dtype: transformers has no int8 here; use ct2:FOLDER or float32"):
        load.load_baseline(f"hf:{tmp_path}", device="cpu", dtype="int8")
