"""ARPA files read again."""

import gzip
import lzma

import numpy as np
import pytest

from kikitori.errors import ModelError
from kikitori.text.ngram.arpa import read_arpa, write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from tests.text.ngram.test_kneser_ney import SENTENCES

WORDS = ["<unk>", "the", "straße", "\\end\\", "d", "5", "g\u00a0h"]


def same(some, others, abs_log=2e-6):
    for one, other in zip(some, others, strict=True):
        assert np.array_equal(one.prefixes, other.prefixes)
        assert np.array_equal(one.last, other.last)
        assert one.log10_probs == pytest.approx(other.log10_probs, abs=abs_log, rel=1e-6)
        assert one.log10_backoffs == pytest.approx(other.log10_backoffs, abs=abs_log, rel=1e-6)
    return True


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (2, 1), (4, 1), (4, 3)])
def test_what_was_written_is_read(order, min_count, tmp_path):
    ngrams = estimate(SENTENCES, 7, order, min_count=min_count)
    file = tmp_path / "lm.arpa"
    write_arpa(file, ngrams, WORDS)
    found, words = read_arpa(file)
    assert words == [*WORDS, "</s>", "<s>"]
    assert same(found, ngrams)
    for suffix, compress in ((".gz", gzip.compress), (".xz", lzma.compress)):
        packed = tmp_path / f"lm.arpa{suffix}"
        packed.write_bytes(compress(file.read_bytes()))
        assert same(read_arpa(packed)[0], found)


def test_any_order_of_lines_and_no_unknown_word(tmp_path):
    (tmp_path / "lm.arpa").write_text(
        "made by hand\n\n\\data\\\nngram 1=4\nngram  2 = 3\n"
        "\n\\1-grams:\n-99\t<s>\t-0.2\n-0.5\ta  -0.3\n-0.6 b\n-1 </s>\n"
        "\n\\2-grams:\n-0.2\ta b\n-0.1\t<s> b\n-0.4\ta </s>\n\n\\end\\\n"
    )
    (unigrams, bigrams), words = read_arpa(tmp_path / "lm.arpa")
    assert words == ["<s>", "a", "b", "</s>", "<unk>"]
    assert unigrams.log10_probs.tolist() == [-99, -0.5, -0.6, -1, -100]
    assert unigrams.log10_backoffs.tolist() == [-0.2, -0.3, 0, 0, 0]
    assert [*zip(bigrams.prefixes.tolist(), bigrams.last.tolist(), strict=True)] == [(0, 2), (1, 2), (1, 3)]
    assert bigrams.log10_probs.tolist() == [-0.1, -0.2, -0.4]


SOUND = (
    "\\data\\\nngram 1=4\nngram 2=2\n\n\\1-grams:\n-99\t<s>\n-0.5\ta\n-1\t</s>\n-2\t<unk>\n\n"
    "\\2-grams:\n-1\ta a\n-1\ta </s>\n\n\\end\\\n"
)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("\\data\\", "", "no ARPA file"),
        ("ngram 2=2", "ngram 2=3", "2 n-grams of order 2, and 3 are announced"),
        ("ngram 2=2", "ngram 3=2", "n-grams of order 3"),
        ("\\2-grams:", "\\3-grams:", "is missing"),
        ("\\end\\", "", "is missing"),
        ("-1\ta a", "-1\ta c", "'c' is no unigram"),
        ("-1\ta a", "1\ta a", "no n-gram of order 2"),
        ("-1\ta a", "nan\ta a", "no n-gram of order 2"),
        ("-1\ta a", "-1\ta a\tinf", "no n-gram of order 2"),
        ("-1\ta a", "-1\ta", "no n-gram of order 2"),
        ("-1\ta a", "-1\ta </s>", "'a </s>' comes twice"),
        ("-2\t<unk>", "-2\ta", "comes twice"),
        ("-99\t<s>", "-99\ts", "<s> and </s> are no words"),
    ],
)
def test_damaged_files(old, new, reason, tmp_path):
    (tmp_path / "lm.arpa").write_text(SOUND)
    read_arpa(tmp_path / "lm.arpa")
    (tmp_path / "lm.arpa").write_text(SOUND.replace(old, new, 1))
    with pytest.raises(ModelError, match=r"lm\.arpa") as refused:
        read_arpa(tmp_path / "lm.arpa")
    assert reason in str(refused.value)


def test_an_n_gram_without_its_beginning(tmp_path):
    text = SOUND.replace("ngram 2=2\n", "ngram 2=2\nngram 3=1\n").replace(
        "\\end\\", "\\3-grams:\n-1\t<s> a a\n\n\\end\\"
    )
    (tmp_path / "lm.arpa").write_text(text)
    with pytest.raises(ModelError, match="'<s> a a' is there without its beginning"):
        read_arpa(tmp_path / "lm.arpa")


def test_files_that_are_no_text(tmp_path):
    for name, content in (("lm.arpa", b"\xff\xfe"), ("lm.arpa.gz", b"no"), ("lm.arpa.xz", b"no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            read_arpa(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        read_arpa(tmp_path / "missing.arpa")
