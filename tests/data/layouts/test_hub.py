"""Data sets of the hub, from a cache as huggingface_hub lays it out; nothing is asked of the network."""

from pathlib import Path

import pytest
from huggingface_hub import HfApi, constants

from kikitori.data.layouts import hub
from kikitori.data.layouts.hub import choose_files, fetch, is_hub_id
from kikitori.data.manifest import read_manifest
from kikitori.errors import ConfigError, DataError
from tests.commands import call, one_line
from tests.data.layouts.sounds import sound, write

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = """---
configs:
- config_name: clean
  default: true
  data_files:
  - {split: test, path: clean/test-*}
  - {split: train.360, path: [clean/train-*, more/*.parquet]}
- config_name: other
  data_files: other/**
---
"""
TRAIN = [f"clean/train-0000{number}-of-00002.parquet" for number in range(2)]
NAMES = [
    "README.md",
    "clean/test-00000-of-00001.parquet",
    *TRAIN,
    "more/x.parquet",
    "more/deep/y.parquet",
    "other/0.parquet",
]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Puts files of a commit of ORG/NAME into an empty cache."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    repo = tmp_path / "hub" / "datasets--org--name"

    def put(files, revision="main"):
        write(repo / "refs" / revision, COMMIT)
        for name, content in files.items():
            blob = write(repo / "blobs" / name.replace("/", "_"), content)
            link = repo / "snapshots" / COMMIT / name
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
        return repo / "snapshots" / COMMIT

    return put


@pytest.fixture
def no_pyarrow_needed(monkeypatch):
    monkeypatch.setattr(hub, "require", lambda *_, **__: None)


def configs(card, tmp_path):
    return hub._configs(write(tmp_path / "README.md", card), "org/name")


def test_the_card_says_which_files_are_whose(tmp_path):
    known = configs(CARD, tmp_path)
    clean = {NAMES[1]: "test", **dict.fromkeys(TRAIN, "train.360"), "more/x.parquet": "train.360"}
    assert choose_files(NAMES, known, None, "r") == choose_files(NAMES, known, "clean", "r") == clean
    assert choose_files(NAMES, known, "other", "r") == {"other/0.parquet": "other"}
    with pytest.raises(ConfigError, match=r"r: there is no config 'claen'; did you mean 'clean'\?"):
        choose_files(NAMES, known, "claen", "r")
    with pytest.raises(ConfigError, match="r: has 2 configs; say --config: clean, other"):
        choose_files(NAMES, configs(CARD.replace("  default: true\n", ""), tmp_path), None, "r")
    only = [{"config_name": "only", "data_dir": "more"}]
    assert choose_files(NAMES, only, None, "r") == {"more/x.parquet": "x", "more/deep/y.parquet": "y"}
    with pytest.raises(DataError, match="r: has no parquet files there; try --revision refs/convert/parquet, or"):
        choose_files(["README.md", "a.wav"], [], None, "r")


def test_names_say_it_where_no_card_does():
    names = ["data/test-00000-of-00001.parquet", "data/dev.parquet"]
    assert choose_files(names, [], None, "r") == {names[1]: "dev", names[0]: "test"}
    assert choose_files([*names, "en/train.parquet"], [], "en", "r") == {"en/train.parquet": "train"}
    converted = ["de/train/0000.parquet", "de/train/0001.parquet", "en/test/0000.parquet"]
    assert choose_files(converted, [], "de", "r") == dict.fromkeys(converted[:2], "train")
    with pytest.raises(ConfigError, match="has 2 configs; say --config: de, en"):
        choose_files(converted, [], None, "r")


def test_what_the_cache_has_is_enough(cache, no_pyarrow_needed):  # noqa: ARG001
    folder = cache({"README.md": CARD, **dict.fromkeys(NAMES[1:], b"parquet")}, "v1")
    found = fetch("org/name", config=None, revision="v1", splits=["train.360"])
    assert found.files == tuple((folder / name, "train.360") for name in (*TRAIN, "more/x.parquet"))
    assert found.evidence(folder) == "01234567 of the hub"
    with pytest.raises(ConfigError, match=r"there is no split 'train'; it has test, train\.360"):
        fetch("org/name", config=None, revision="v1", splits=["train"])
    with pytest.raises(DataError, match=r"^org/name: cannot be fetched from the hub .*; check the id"):
        fetch("org/name", config=None, revision=None, splits=[])


def test_half_a_cache_is_not_taken_for_the_data_set(cache, no_pyarrow_needed, monkeypatch):  # noqa: ARG001
    cache({"README.md": CARD, TRAIN[0]: b"parquet", NAMES[1]: b"parquet"})
    assert len(fetch("org/name", config=None, revision=None, splits=["test"]).files) == 1
    with pytest.raises(DataError, match="org/name: 1 of 2 files of clean/train are there; run the same command again"):
        fetch("org/name", config=None, revision=None, splits=[])
    monkeypatch.setattr(HfApi, "list_repo_files", lambda *_, **__: NAMES)  # the hub answers, and then no more
    with pytest.raises(DataError, match=f"org/name: {TRAIN[1]} was not fetched; run the same command again"):
        fetch("org/name", config=None, revision=None, splits=[])


def test_a_path_whose_folder_is_here_is_no_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_hub_id(Path("org/name"))
    (tmp_path / "data").mkdir()
    assert not any(is_hub_id(Path(text)) for text in ("data/name", "/org/other", "org", "a/b/c", "../a", ".a/b"))


def test_from_the_hub_to_a_manifest(cache, tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")

    def rows(number):
        audio = [{"bytes": sound(seed=number), "path": f"{number}.flac"}]
        parquet.write_table(pyarrow.table({"audio": audio, "text": [f"text {number}"]}), tmp_path / "t")
        return (tmp_path / "t").read_bytes()

    cache({"README.md": CARD, **{name: rows(number) for number, name in enumerate(NAMES[1:4])}, NAMES[4]: rows(4)})
    out = tmp_path / "m.jsonl"
    result = call("data", "convert", "org/name", "-o", out, "--split", "train.360", "--language", "en")
    assert result.exit_code == 0, result.output
    assert "read as hugging-face (01234567 of the hub)" in result.stderr
    assert [(row.text, row.split) for row in read_manifest(out).utterances] == [
        ("text 1", "train.360"),
        ("text 2", "train.360"),
        ("text 4", "train.360"),
    ]


def test_wrong_calls(cache, tmp_path):  # noqa: ARG001
    out = ("-o", tmp_path / "m.jsonl")
    line = one_line(call("data", "convert", "org/name", *out))
    assert line.startswith("kikitori: org/name: cannot be fetched from the hub (")
    here = write(tmp_path / "x.csv", "audio\n")
    assert "--config: is of no use here; it belongs to an id" in one_line(
        call("data", "convert", here, "--config", "clean", *out)
    )
