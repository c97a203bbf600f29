import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.data.manifest import MAX_LINE_CHARS, is_recognized, read_manifest, with_reference, write_manifest
from kikitori.errors import DataError
from kikitori.types import Utterance

GOOD = b'{"audio_filepath": "a.wav", "duration": 1.5, "text": "a"}\n'


@pytest.fixture
def manifest(tmp_path):
    def write(*lines):
        path = tmp_path / "manifest.jsonl"
        path.write_bytes(
            b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
        )
        return path

    return write


def test_every_key(manifest):
    path = manifest(
        {
            "audio_filepath": "sub/a.flac",
            "duration": 2,
            "text": "聞き取り",
            "offset": 1.25,
            "id": "u1",
            "language": "ja",
            "split": "dev",
            "speaker": "s",
            "prompt": None,
            "snr": 3,
            "nested": {"a": [1]},
        }
    )
    assert read_manifest(path).utterances == (
        Utterance(
            path.parent / "sub/a.flac",
            2.0,
            "聞き取り",
            1.25,
            "u1",
            "ja",
            "dev",
            "s",
            {"snr": 3, "nested": {"a": [1]}},
        ),
    )


def test_least_row_and_paths(manifest, tmp_path):
    path = manifest(
        {"audio_filepath": "../a.wav", "duration": 0}, {"audio_filepath": "/abs/b.wav", "duration": 1, "id": 0}
    )
    first, second = read_manifest(str(path)).utterances
    assert first == Utterance(tmp_path / "../a.wav", 0.0, utt_id="../a.wav")
    assert (str(second.audio_filepath), second.utt_id) == ("/abs/b.wav", "0")


def test_synonyms_nulls_blank_lines_and_bom(manifest):
    row = {"audio_filepath": "a", "duration": 1, "lang": "en", "text": None, "offset": None, "id": "", "split": None}
    manifest_ = read_manifest(manifest(b"\xef\xbb\xbf", row, b"\n", b"  \r\n", GOOD.rstrip()))
    assert len(manifest_.utterances) == 2
    assert manifest_.utterances[0].language == "en"
    assert (manifest_.utterances[0].utt_id, manifest_.utterances[0].offset) == ("a", 0.0)
    assert manifest_.utterances[0].extra == {}


BROKEN = {
    "not JSON (Expecting": b"{nonsense\n",
    "not JSON (Invalid control": b'{"audio_filepath": "a\n',
    "not JSON ('utf-8'": b'{"audio_filepath": "\xff", "duration": 1}\n',
    "not JSON (maximum recursion": b"[" * 100_000 + b"\n",
    "not a JSON object": b"[1, 2]\n",
    "'audio_filepath' is missing": {"duration": 1},
    "'audio_filepath' is missing ": {"audio_filepath": "", "duration": 1},
    "'audio_filepath' must be a string, not 3": {"audio_filepath": 3, "duration": 1},
    "'duration' is missing": {"audio_filepath": "a"},
    "'duration' is missing ": {"audio_filepath": "a", "duration": None},
    "'duration' must be a number of seconds, not nan": {"audio_filepath": "a", "duration": float("nan")},
    "'duration' must be a number of seconds, not inf": b'{"audio_filepath": "a", "duration": 1e999}\n',
    "'duration' must be a number of seconds, not 1000": b'{"audio_filepath": "a", "duration": 1' + b"0" * 400 + b"}\n",
    "Exceeds the limit": b'{"audio_filepath": "a", "duration": 1' + b"0" * 5000 + b"}\n",
    "'duration' must be a number of seconds, not -1": {"audio_filepath": "a", "duration": -1},
    "'duration' must be a number of seconds, not '1.5'": {"audio_filepath": "a", "duration": "1.5"},
    "'duration' must be a number of seconds, not True": {"audio_filepath": "a", "duration": True},
    "'offset' must be a number of seconds, not -0.5": {"audio_filepath": "a", "duration": 1, "offset": -0.5},
    "'text' must be a string, not ['a']": {"audio_filepath": "a", "duration": 1, "text": ["a"]},
    "'split' must be a string, not 1": {"audio_filepath": "a", "duration": 1, "split": 1},
    "'text' holds half a character": {"audio_filepath": "a", "duration": 1, "text": "a\ud83d"},
    "'id' holds half a character": {"audio_filepath": "a", "duration": 1, "id": "\udc00"},
    "'language' must be a string": {"audio_filepath": "a", "duration": 1, "language": 1},
    "'prompt' is not supported, an LLM's prompt is that of its recipe for all rows": {
        "audio_filepath": "a",
        "duration": 1,
        "prompt": "p",
    },
    "line longer than 1 MB": b'{"audio_filepath": "' + b"a" * MAX_LINE_CHARS + b'"}\n',
}


@pytest.mark.parametrize("reason", BROKEN, ids=range(len(BROKEN)))
def test_broken_lines_are_named(manifest, reason):
    path = manifest(GOOD, b"\n", BROKEN[reason], GOOD)
    with pytest.raises(DataError) as caught:
        read_manifest(path)
    assert str(caught.value).startswith(f"{path}:3: ")
    assert reason.strip() in str(caught.value)
    assert str(caught.value).endswith("; mend or delete the line")
    skipped = read_manifest(path, on_error="skip")
    assert len(skipped.utterances) == 2
    (problem,) = skipped.problems
    assert problem.startswith(f"{path}:3: ")
    assert reason.strip() in problem
    assert len(problem) < 500


def test_long_broken_values_are_cut(manifest):
    with pytest.raises(DataError) as caught:
        read_manifest(manifest({"audio_filepath": "a", "duration": "x" * 10_000}))
    assert len(str(caught.value)) < 400


def test_split_filter(manifest):
    rows = [
        {"audio_filepath": name, "duration": 1, "split": split}
        for name, split in zip("abc", ["train", "dev", None], strict=True)
    ]
    path = manifest(*rows)
    assert [u.utt_id for u in read_manifest(path, split="dev").utterances] == ["b"]
    assert len(read_manifest(path).utterances) == 3
    with pytest.raises(DataError, match="no usable row of split 'test'; check its name"):
        read_manifest(path, split="test")


def test_nothing_usable(manifest, tmp_path):
    with pytest.raises(DataError, match="no usable row; check the manifest"):
        read_manifest(manifest(b""))
    with pytest.raises(DataError, match="no usable row"):
        read_manifest(manifest(b"x\n"), on_error="skip")
    with pytest.raises(DataError, match="no such manifest; check the path or data_root"):
        read_manifest(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="is no manifest: it is a folder"):
        read_manifest(tmp_path)


def test_binary_files_are_refused(manifest):
    with pytest.raises(DataError, match=r"manifest.jsonl:1: "):
        read_manifest(manifest(bytes(range(256)) * 10))


@settings(max_examples=30)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"audio_filepath": st.text(min_size=1), "duration": st.floats(0, 1e6)},
            optional={"text": st.text(), "speaker": st.text(), "mine": st.integers() | st.lists(st.booleans())},
        ),
        min_size=1,
        max_size=5,
    )
)
def test_written_rows_are_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("manifest") / "m.jsonl"
    write_manifest(path, rows)
    for row, utterance in zip(rows, read_manifest(path).utterances, strict=True):
        assert utterance.audio_filepath == path.parent / row["audio_filepath"]
        assert (utterance.duration, utterance.text, utterance.speaker) == (
            row["duration"],
            row.get("text"),
            row.get("speaker"),
        )
        assert utterance.extra == ({"mine": row["mine"]} if "mine" in row else {})


@pytest.mark.parametrize(("value", "expected"), [(True, True), (False, False), ("yes", False), (None, False)])
def test_recognised_text_is_marked(tmp_path, value, expected):
    row = {"audio_filepath": "x.wav", "duration": 1.0, "text": "a"}
    write_manifest(tmp_path / "manifest.jsonl", [row | {"recognized": value}, row])
    marked, plain = read_manifest(tmp_path / "manifest.jsonl").utterances
    assert (is_recognized(marked), is_recognized(plain)) == (expected, False)


@pytest.mark.parametrize(
    ("speaker", "expected"),
    [(92, "92"), (92.0, "92"), ("92", "92"), (0, "0"), (float("nan"), None), (None, None), (1.5, "1.5")],
)
def test_speakers_may_be_numbers(manifest, speaker, expected):
    path = manifest({"audio_filepath": "a", "duration": 1, "speaker": speaker})  # lhotse's report 1437
    assert read_manifest(path).utterances[0].speaker == expected


@pytest.mark.parametrize("speaker", [True, ["a"], {"a": 1}])
def test_speakers_are_names(manifest, speaker):
    with pytest.raises(DataError, match="'speaker' must be a string"):
        read_manifest(manifest({"audio_filepath": "a", "duration": 1, "speaker": speaker}))


def test_joined_manifests_have_byte_order_marks_in_the_middle(manifest):
    assert len(read_manifest(manifest(b"\xef\xbb\xbf", GOOD, b"\xef\xbb\xbf", GOOD)).utterances) == 2


def test_another_key_of_the_rows_is_what_was_said(manifest):
    rows = read_manifest(manifest(GOOD, GOOD)).utterances
    spoken = [replace(row, extra={"reading": "よみ"}) for row in rows]
    assert with_reference(rows, "text") == list(rows)
    assert [row.text for row in with_reference(spoken, "reading")] == ["よみ"] * len(rows)
    with pytest.raises(DataError, match="reading"):
        with_reference(rows, "reading")
