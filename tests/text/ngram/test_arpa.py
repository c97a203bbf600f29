"""ARPA files read again."""

import gzip
import lzma
from math import log

import numpy as np
import pytest

from kikitori.errors import ModelError
from kikitori.text.ngram.arpa import read_arpa, write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.model import fold, score_text
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
        ("ngram 2=2", "ngram 3=2", "n-grams of order 3 where order 2 is due"),
        ("ngram 1=4\n", "", "n-grams of order 2 where order 1 is due"),
        ("ngram 1=4", "ngram 1=0", "no number of unigrams"),
        ("\\2-grams:", "\\3-grams:", "is missing"),
        ("\\end\\", "", "is missing"),
        ("-1\ta a", "-1\ta c", "'c' is no unigram"),
        ("-1\ta a", "1\ta a", "no n-gram of order 2"),
        ("-1\ta a", "nan\ta a", "no n-gram of order 2"),
        ("-1\ta a", "-1\ta a\tinf", "no n-gram of order 2"),
        ("-1\ta a", "-1\ta", "no n-gram of order 2"),
        ("-1\ta a", "-1\ta </s>", "'a </s>' comes twice"),
        ("-2\t<unk>", "-2\ta", "comes twice"),
        ("-2\t<unk>", "-2\t<unk>\n-2\t<UNK>", "'<unk>' comes twice"),
        ("\\1-grams:", "\\1-grams", "1-grams: is missing"),
    ],
)
def test_damaged_files(old, new, reason, tmp_path):
    (tmp_path / "lm.arpa").write_text(SOUND)
    read_arpa(tmp_path / "lm.arpa")
    (tmp_path / "lm.arpa").write_text(SOUND.replace(old, new, 1))
    with pytest.raises(ModelError, match=r"lm\.arpa") as refused:
        read_arpa(tmp_path / "lm.arpa")
    assert reason in str(refused.value)


def read_text(tmp_path, text):
    (tmp_path / "lm.arpa").write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_arpa(tmp_path / "lm.arpa")


@pytest.mark.parametrize(
    ("old", "new"),
    {
        "a byte order mark": ("\\data\\", "\ufeff\\data\\"),
        "lines of DOS": ("\n", "\r\n"),
        "spaces at the ends of lines": ("\n", " \t\n"),
        "spaces for tabs": ("\t", "  "),
        "comments before": ("\\data\\", "# estimated by a toolkit\n\nwords=7 order=2\n\\data\\"),
        "counts with spaces": ("ngram 1=4", "ngram  1 =       4"),
        "no blank lines": ("\n\n", "\n"),
        "more blank lines": ("\n", "\n\n"),
        "unknown words in capitals (SRILM, Kaldi, OpenGrm; pyctcdecode's report 3)": ("<unk>", "<UNK>"),
        "unknown words of other recipes": ("<unk>", "<oov>"),
        "unknown words of HTK": ("<unk>", "!!UNK"),
        "unknown words of BERT's units": ("<unk>", "[UNK]"),
        "a beginning in capitals": ("<s>", "<S>"),
        "an end in capitals": ("</s>", "</S>"),
        "an end of HTK": ("</s>", "!SENT_END"),
        "backoffs of the highest order": ("a a", "a a\t0"),
        "an order without n-grams": ("ngram 2=2\n", "ngram 2=2\nngram 3=0\n"),
        "such an order with its heading": ("ngram 2=2\n\n", "ngram 2=2\nngram 3=0\n\n"),
        "text behind the end": ("\\end\\", "\\end\\\nfurther lines"),
        "a beginning that is certain (lmplz)": ("-99\t<s>", "0\t<s>"),
        "a beginning that is impossible": ("-99\t<s>", "-inf\t<s>"),
    }.values(),
)
def test_files_as_other_tools_write_them(old, new, tmp_path):
    ngrams, words = read_text(tmp_path, SOUND)
    text = SOUND.replace(old, new)
    if "3=0" in new and new.endswith("\n\n"):
        text = text.replace("\\end\\", "\\3-grams:\n\n\\end\\")
    found, others = read_text(tmp_path, text)
    assert others == words == ["<s>", "a", "</s>", "<unk>"]
    assert same(found, ngrams)


def test_log_probabilities_above_zero_by_rounding(tmp_path):
    (unigrams, _), _ = read_text(tmp_path, SOUND.replace("-0.5\ta", "1.2e-07\ta"))
    assert unigrams.log10_probs[1] == 0


def test_without_an_end_or_a_beginning(tmp_path):
    text = "\\data\\\nngram 1=2\nngram 2=1\n\\1-grams:\n-0.3 a -0.1\n-0.4 b\n\\2-grams:\n-0.2 a b\n\\end\\\n"
    ngram = fold(*read_text(tmp_path, text))
    assert score_text(ngram, ["a", "b"]) == pytest.approx(log(10) * -0.5, abs=1e-6)
    assert score_text(ngram, []) == 0
    assert ngram.start == 0


PRUNED = """\\data\\
ngram 1=5
ngram 2=2
ngram 3=1
ngram 4=1
\\1-grams:
-99 <s> -0.1
-0.5 a -0.2
-0.7 b -0.3
-1 </s>
-2 <unk>
\\2-grams:
-0.4 a b -0.15
-0.6 b </s>
\\3-grams:
-0.25 a b a
\\4-grams:
-0.05 <s> b b a
\\end\\
"""


def test_n_grams_whose_beginnings_were_pruned(tmp_path):
    ngram = fold(*read_text(tmp_path, PRUNED))
    by_hand = {
        ("b",): -0.1 - 0.7 - 0.6,  # <s> b backs off; b </s>
        ("b", "b"): -0.1 - 0.7 - 0.3 - 0.7 - 0.6,
        ("b", "b", "a"): -0.1 - 0.7 - 0.3 - 0.7 - 0.05 - 0.2 - 1,  # the 4-gram
        ("a", "b", "b", "a"): -0.1 - 0.5 - 0.4 - 0.15 - 0.3 - 0.7 - 0.3 - 0.5 - 0.2 - 1,
        ("a", "b", "a"): -0.1 - 0.5 - 0.4 - 0.25 - 0.2 - 1,  # the trigram
    }
    for words, expected in by_hand.items():
        assert score_text(ngram, words) == pytest.approx(log(10) * expected, abs=1e-5)


def test_files_of_another_kind(tmp_path):
    for content, reason in (
        (b"iARPA\n\\data\\\nngram 1=1\n", "IRSTLM of another kind; .* compile-lm"),
        (b"blmt 3 1 2\n", "IRSTLM"),
        (b"<html>not found</html>\n", "no ARPA file"),
        (SOUND.replace("\ta", "\tä").encode("latin-1"), r"lm\.arpa:7: .*'\\\\xe4' is not in UTF-8"),
        (SOUND.encode("utf-16"), "cannot be read: .* UTF-16; save it as UTF-8"),
        (SOUND.replace("-0.5", "-0,5").encode(), "no n-gram of order 1: '-0,5"),
        (b"", "no ARPA file"),
    ):
        with pytest.raises(ModelError, match=reason):
            read_text(tmp_path, content)


def test_files_that_are_cut_short(tmp_path):
    whole = SOUND.encode()
    for size in range(len(whole) - len("\n\\end\\\n")):
        with pytest.raises(ModelError, match=r"lm\.arpa"):
            read_text(tmp_path, whole[:size])


def test_files_that_are_no_text(tmp_path):
    for name, content in (("lm.arpa", b"\xff\xfe"), ("lm.arpa.gz", b"no"), ("lm.arpa.xz", b"no")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ModelError, match="cannot be read"):
            read_arpa(tmp_path / name)
    with pytest.raises(ModelError, match="cannot be read"):
        read_arpa(tmp_path / "missing.arpa")


def test_special_words_in_another_spelling_score_as_themselves(tmp_path):
    capitals = PRUNED.replace("<s>", "<S>").replace("</s>", "</S>").replace("<unk>", "<UNK>")
    plain, other = fold(*read_text(tmp_path, PRUNED)), fold(*read_text(tmp_path, capitals))
    for words in ([], ["a", "b"], ["b", "other", "a"], ["b", "b", "a"]):
        assert score_text(other, words) == pytest.approx(score_text(plain, words), abs=1e-6)


@pytest.mark.parametrize("spelling", ["<UNK>", "<oov>", "[UNK]"])
def test_the_unknown_word_in_another_spelling_before_all_others(spelling, tmp_path):
    text = SOUND.replace("-2\t<unk>\n", "").replace("1-grams:\n", "1-grams:\n-2\t<unk>\n")
    plain, words = read_text(tmp_path, text)
    found, others = read_text(tmp_path, text.replace("<unk>", spelling))
    assert others == words == ["<unk>", "<s>", "a", "</s>"]
    assert same(found, plain)


def test_a_word_that_looks_special_stays_a_word_beside_the_special_one(tmp_path):
    text = SOUND.replace("\ta\n", "\t<S>\n").replace("\ta a", "\t<S> <S>").replace("\ta </s>", "\t<S> </s>")
    assert read_text(tmp_path, text)[1] == ["<s>", "<S>", "</s>", "<unk>"]
