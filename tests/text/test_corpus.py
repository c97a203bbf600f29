import gzip
import itertools
import lzma

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import DataError
from kikitori.text.corpus import common_words, read_lines, speak_titles

TEXT = "one\n\n  two \r\n\t\n聞き取り\nfour"
LINES = ["one", "two", "聞き取り", "four"]


@pytest.mark.parametrize(("suffix", "compress"), [("txt", bytes), ("txt.gz", gzip.compress), ("txt.xz", lzma.compress)])
def test_plain_and_compressed(tmp_path, suffix, compress):
    path = tmp_path / f"corpus.{suffix}"
    path.write_bytes(compress(TEXT.encode()))
    assert list(read_lines(path)) == LINES
    assert list(read_lines(path, max_lines=2)) == ["one", "聞き取り"]
    assert list(read_lines(path, max_lines=100)) == LINES


@settings(max_examples=40, deadline=None)
@given(total=st.integers(0, 300), wanted=st.integers(1, 350))
def test_lines_are_evenly_spread(tmp_path_factory, total, wanted):
    path = tmp_path_factory.mktemp("text") / "numbers.txt"
    path.write_text("".join(f"{number}\n" for number in range(total)))
    taken = [int(line) for line in read_lines(path, max_lines=wanted)]
    assert len(taken) == min(total, wanted)
    gaps = [b - a for a, b in itertools.pairwise(taken)]
    assert not gaps or max(gaps) - min(gaps) <= 1


def test_reading_is_lazy(tmp_path):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"fine\n" * 100_000 + b"\xff\n")
    assert next(read_lines(path)) == "fine"
    with pytest.raises(DataError, match=r"bad\.txt: cannot be read as UTF-8 text"):
        list(read_lines(path))


@pytest.mark.parametrize("cut", [slice(0, 60), slice(0, 0), None])
@pytest.mark.parametrize(("suffix", "compress"), [("gz", gzip.compress), ("xz", lzma.compress)])
def test_damaged_archives(tmp_path, suffix, compress, cut):
    path = tmp_path / f"corpus.{suffix}"
    data = bytearray(compress("\n".join(map(str, range(5000))).encode()))
    if cut is None:
        data[200:260] = bytes(60)
    path.write_bytes(data[cut] if cut else data)
    if cut == slice(0, 0) and suffix == "gz":
        assert list(read_lines(path)) == []  # gzip takes nothing for nothing
        return
    with pytest.raises(DataError, match=f"corpus.{suffix}: cannot be read"):
        list(read_lines(path))


def test_wrong_suffix_and_missing_file(tmp_path):
    path = tmp_path / "plain.gz"
    path.write_text("not compressed")
    with pytest.raises(DataError, match="cannot be read"):
        list(read_lines(path))
    for missing, what in ((tmp_path / "none.txt", "no such text file; check the path"), (tmp_path, "it is a folder")):
        with pytest.raises(DataError, match=what):
            list(read_lines(missing, max_lines=3))


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Mr. Crow and Mrs. Crow", "mister Crow and missus Crow"),
        ("Dr. Lee, Messrs. A and B", "doctor Lee, messieurs A and B"),
        ("“Mr. X”", "“mister X”"),
        ("Mrs Dalloway; AMr. mr. Dry.", "Mrs Dalloway; AMr. mr. Dry."),
    ],
)
def test_titles_as_spoken(text, spoken):
    assert speak_titles(text) == spoken


def test_common_words():
    texts = ["the fox and the dog", "", "a dog  and the cat"]
    assert common_words(texts) == ["the", "and", "dog", "a", "cat", "fox"]
    assert common_words(texts, min_count=2) == ["the", "and", "dog"]
    assert common_words(texts, most=2) == ["the", "and"]
    assert common_words(texts, min_count=3, most=2) == ["the"]
