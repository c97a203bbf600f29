import pytest

from kikitori.errors import ModelError
from kikitori.io.untrusted import MAX_COMMAS, MAX_JSON_BYTES, MAX_JSON_DEPTH, check_files, read_object


def test_an_object_is_read(tmp_path):
    file = tmp_path / "config.json"
    file.write_text('{"a": [1, 2.5, null, true, "é"], "b": {"a": -1e308}}')
    assert read_object(file) == {"a": [1, 2.5, None, True, "é"], "b": {"a": -1e308}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "x.json is not JSON ('b' comes twice)"),
        ('{"a": {"b": [1, NaN]}}', "x.json: a b is no finite number"),
        ('{"a": 1e999}', "x.json: a is no finite number"),
        ('{"a": ' + "[" * (MAX_JSON_DEPTH + 1) + "]" * (MAX_JSON_DEPTH + 1) + "}", "levels deep"),
        ('{"a": [' + "0," * MAX_COMMAS + "0, 0]}", "too many values"),
        ('{"a": [' + "[" * MAX_COMMAS, "too many values"),
        ("[]", "x.json is not a JSON object"),
        ("", "x.json is not JSON"),
        ('{"a": "\udc80"}', "x.json is not JSON"),
    ],
)
def test_what_is_no_object_of_ours(text, expected, tmp_path):
    file = tmp_path / "x.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelError) as caught:
        read_object(file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_vocabularies_may_be_larger_and_odd(tmp_path):
    file = tmp_path / "tokenizer.json"
    file.write_text('{"a": 1, "a": [' + "0," * MAX_COMMAS + "0, 0]}")
    assert len(read_object(file, vocabulary=True)["a"]) == MAX_COMMAS + 2


def test_missing_and_giant_files(tmp_path):
    with pytest.raises(ModelError, match=r"x.json is missing; copy the folder again"):
        read_object(tmp_path / "x.json")
    for name in ("decoding.yaml", "draft.yaml", "common.yaml"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MAX_JSON_BYTES + 1)
        with pytest.raises(ModelError, match=rf"{name} is larger than 4 MB"):
            check_files(tmp_path)
        (tmp_path / name).unlink()
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(MAX_JSON_BYTES + 1)
    for read in (lambda: read_object(tmp_path / "config.json"), lambda: check_files(tmp_path)):
        with pytest.raises(ModelError, match=r"config.json is larger than 4 MB"):
            read()


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(ModelError, match=r"cannot be read \(Permission denied\); check its permissions"):
        check_files(tmp_path)


def test_shared_blobs_are_those_of_a_cache(tmp_path):
    for repository, accepted in (("models--a--b", True), ("evil", False)):
        folder = tmp_path / repository / "snapshots" / "1"
        folder.mkdir(parents=True)
        (tmp_path / "blobs").mkdir(exist_ok=True)
        (tmp_path / "blobs" / "1").write_text("x")
        (folder / "a").symlink_to(tmp_path / "blobs" / "1")
        if accepted:
            check_files(folder)
        else:
            with pytest.raises(ModelError, match="leads out of the folder"):
                check_files(folder)


def test_links(tmp_path):
    folder = tmp_path / "snapshots" / "model"
    (folder / "sub").mkdir(parents=True)
    for name, target in (("sub/a", None), ("b", "sub/a"), ("c.json", "b")):
        if target is None:
            (folder / name).write_text("x")
        else:
            (folder / name).symlink_to(target)
    check_files(folder)
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "1").write_text("x")
    (folder / "d").symlink_to("../../blobs/1")
    check_files(folder)
    (tmp_path / "secret").write_text("x")
    (folder / "e").symlink_to("../../secret")
    with pytest.raises(ModelError, match="e is a link that leads out of the folder; put the file itself there"):
        check_files(folder)


def test_models_within_a_model_of_the_cache_have_its_blobs(tmp_path):
    inner = tmp_path / "models--a--b" / "snapshots" / "1" / "speech_llm" / "llm"
    inner.mkdir(parents=True)
    (tmp_path / "models--a--b" / "blobs").mkdir()
    (tmp_path / "models--a--b" / "blobs" / "1").write_text("x")
    for folder in (inner.parent, inner):
        (folder / "a").symlink_to(tmp_path / "models--a--b" / "blobs" / "1")
        check_files(folder)
    (inner / "deeper").mkdir()
    (inner / "deeper" / "a").symlink_to(tmp_path / "models--a--b" / "blobs" / "1")
    with pytest.raises(ModelError, match="leads out of the folder"):
        check_files(inner / "deeper")
