"""Every search of the repository is one."""

from pathlib import Path

import pytest

from kikitori.search.options import load_decoding

SEARCHES = sorted((Path(__file__).parents[1] / "searches").glob("*.yaml"))


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_committed_searches_load(path):
    assert f"search: {load_decoding(path).search}\n" in path.read_text()
