import re
from pathlib import Path

import pytest

import kikitori
from kikitori.errors import ModelError
from kikitori.io.model_folder import around, copy_search_files, heads_file, resolve, search_files, search_files_digest
from kikitori.search.defaults import default_search

RESCORING = """base: common.yaml
search: rescoring
lms: {big: {path: lms/big}, words: {path: deep/words.arpa}}
priors: {labels: {path: "${scales.name}.safetensors", lm: big}}
"""
NAMED = ("common.yaml", "lms/big", "deep/words.arpa", "counts.safetensors")


@pytest.fixture
def folder(tmp_path):
    """A model folder with a search that names files of its own."""
    path = tmp_path / "model"
    for name in (
        "lm/config.json",
        "lms/big/config.json",
        "lms/small/config.json",
        "deep/words.arpa",
        "prior.safetensors",
    ):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(name)
    for name in ("counts.safetensors", "model.safetensors", "README.md", "elsewhere.arpa"):
        (path / name).write_text(name)
    (path / "common.yaml").write_text("scales: {name: counts}\n")
    (path / "decoding.yaml").write_text(RESCORING)
    (path / "draft.yaml").write_text("search: ctc_greedy\n")
    return path


def written(path):
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}


def test_the_usual_files_and_the_named_ones_belong_to_the_folder(folder):
    usual = ["decoding.yaml", "lm", "prior.safetensors", "draft.yaml"]
    assert [*map(str, search_files(folder))] == [*usual, *NAMED]


def test_copies_keep_what_is_there_already(folder, tmp_path):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "prior.safetensors").write_text("newer")
    copy_search_files(folder, tmp_path / "copy")
    left_out = {"lms/small/config.json", "model.safetensors", "README.md", "elsewhere.arpa"}
    assert written(tmp_path / "copy") == written(folder) - left_out
    assert (tmp_path / "copy" / "prior.safetensors").read_text() == "newer"
    assert (tmp_path / "copy" / "deep" / "words.arpa").read_text() == "deep/words.arpa"


def test_digests_tell_changes_of_what_searches_find(folder):
    before = search_files_digest(folder)
    for name in ("README.md", "model.safetensors", "lms/small/config.json", "elsewhere.arpa"):
        (folder / name).write_text("changed")
        assert search_files_digest(folder) == before
    for name in ("lm/config.json", "draft.yaml", "common.yaml", "lms/big/config.json", "deep/words.arpa"):
        text = (folder / name).read_text()
        (folder / name).write_text(f"{text} # changed\n")
        assert search_files_digest(folder) != before, name
        (folder / name).write_text(text)
    (folder / "decoding.yaml").write_text(f"{RESCORING}# changed\n")
    assert search_files_digest(folder) == before


@pytest.mark.parametrize(
    "text", ["search: [", "- greedy\n", "lm: ../outside\n", f"lm: {'x' * 5000}\n", 'lm: "\\0"\n', "lm: .\n"]
)
def test_settings_that_lead_elsewhere_bring_nothing_along(folder, text):
    (folder.parent / "outside").mkdir()
    (folder / "decoding.yaml").write_text(text)
    assert [*map(str, search_files(folder))] == ["decoding.yaml", "lm", "prior.safetensors", "draft.yaml"]


def test_paths_are_resolved_within_the_folder(folder):
    assert resolve(folder, "lms/../lm", "decoding.yaml") == folder / "lm"
    (folder / "link").symlink_to(folder.parent)
    for path in ("..", "link", "none", str(folder.parent)):
        with pytest.raises(ModelError, match=r"decoding\.yaml: it names .*, which is not in the folder; name a path"):
            resolve(folder, path, "decoding.yaml")


def test_a_base_elsewhere_is_refused(folder):
    (folder.parent / "settings.yaml").write_text("search: ctc_greedy\n")
    (folder / "decoding.yaml").write_text("base: ../settings.yaml\n")
    with pytest.raises(ModelError, match="which is not in the folder"):
        default_search(folder)


def test_the_names_stand_in_one_place():
    names = re.compile(r'"(decoding\.yaml|draft\.yaml|lexicon\.tsv\.xz|words\.ngram|(phone_)?prior\.safetensors)"')
    source = Path(kikitori.__file__).parent
    found = [file for file in source.rglob("*.py") if names.search(file.read_text())]
    assert found == [source / "io" / "model_folder.py"]


def test_a_second_decoder_finds_what_belongs_to_the_heads_around_it(folder, tmp_path):
    second = folder / "speech_llm"
    second.mkdir()
    (second / "config.json").write_text('{"base": {"name": ".."}}')
    (second / "decoding.yaml").write_text("search: joint\n")
    (folder / "config.json").write_text('{"base": {"name": "someone/whisper"}}')
    assert around(second) == folder
    assert around(folder) is around(tmp_path) is None
    assert heads_file(second, "prior.safetensors") == folder / "prior.safetensors"
    assert heads_file(folder, "words.ngram") == folder / "words.ngram"
    assert [*map(str, search_files(second))] == ["decoding.yaml"]
    before = search_files_digest(second)
    (folder / "draft.yaml").write_text("search: ctc_beam\n")
    assert search_files_digest(second) == before
    (folder / "prior.safetensors").write_text("others")
    assert search_files_digest(second) != before
    (second / "prior.safetensors").write_text("its own")
    assert heads_file(second, "prior.safetensors") == second / "prior.safetensors"
    copy_search_files(second, tmp_path / "copy")
    assert written(tmp_path / "copy") == {"decoding.yaml", "prior.safetensors", "lm/config.json"}
    assert (tmp_path / "copy" / "prior.safetensors").read_text() == "its own"
    assert (tmp_path / "copy" / "decoding.yaml").read_text() == "search: joint\n"
