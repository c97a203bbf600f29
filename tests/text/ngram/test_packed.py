"""Small files of n-grams: nearly the same numbers, and nothing unsound gets in."""

import lzma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from kikitori.errors import ConfigError, ModelError
from kikitori.text.ngram import packed as packed_ngram
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.packed import read_packed, write_packed
from tests.text.ngram.test_arpa import same
from tests.text.ngram.test_kneser_ney import SENTENCES

NAMES = ["<unk>", *"abcdef", "</s>", "<s>"]


@pytest.mark.parametrize(("order", "min_count"), [(1, 1), (2, 1), (4, 1), (4, 3), (4, 10**6)])
def test_what_was_written_is_read(order, min_count, tmp_path):
    ngrams = estimate(SENTENCES, 7, order, min_count=min_count)
    write_packed(tmp_path / "lm.ngram", ngrams, NAMES)
    found, words = read_packed(tmp_path / "lm.ngram")
    assert words == NAMES
    widest = max(np.ptp(each.log10_probs[each.log10_probs > -99]) for each in ngrams if len(each.last))
    assert same(found, ngrams, widest / 255)
    for one, other in zip(found, ngrams, strict=True):
        assert ((one.log10_backoffs == 0) | (other.log10_backoffs != 0)).all()


many = st.lists(st.lists(st.integers(0, 69_999), max_size=6), min_size=1, max_size=8).filter(any)


@settings(max_examples=10, deadline=None)
@given(many, st.integers(1, 3))
def test_large_vocabularies(tmp_path_factory, sentences, order):
    file = tmp_path_factory.mktemp("lm") / "lm.ngram"
    ngrams = estimate(sentences, 70_000, order)
    write_packed(file, ngrams, ["<unk>", *map(str, range(1, 70_000)), "</s>", "<s>"])
    for one, other in zip(read_packed(file)[0], ngrams, strict=True):
        assert np.array_equal(one.prefixes, other.prefixes)
        assert np.array_equal(one.last, other.last)


def changed(arrays, name, change):
    return {**arrays, name: change(arrays[name].copy())}


def without(arrays, name):
    return {key: value for key, value in arrays.items() if key != name}


@pytest.mark.parametrize(
    "damage",
    [
        lambda a: without(a, "words"),
        lambda a: without(a, "followers.2"),
        lambda a: without(a, "probs.1"),
        lambda a: without(a, "probs_range.2"),
        lambda a: changed(a, "words", lambda w: w[:-4]),
        lambda a: changed(a, "words", lambda w: w * 0 + 255),
        lambda a: changed(a, "followers.2", lambda f: f + 1),
        lambda a: changed(a, "followers.2", lambda f: f[:, :-1]),
        lambda a: changed(a, "gaps.2", lambda g: g * 0),
        lambda a: changed(a, "gaps.2", lambda g: g * 0 + 255),
        lambda a: changed(a, "gaps.2", lambda g: g.astype(np.int64)),
        lambda a: changed(a, "probs.2", lambda p: p[:-1]),
        lambda a: changed(a, "probs.2", lambda p: p.astype(np.float32)),
        lambda a: changed(a, "probs_range.2", lambda r: r * np.nan),
        lambda a: changed(a, "probs_range.2", lambda r: -r),
        lambda a: changed(a, "backoffs_range.1", lambda r: r + np.inf),
        lambda a: changed(a, "backoffs.1", lambda b: b[:-1]),
    ],
)
def test_damaged_files(damage, tmp_path):
    write_packed(tmp_path / "lm.ngram", estimate(SENTENCES, 7, 3), NAMES)
    arrays = load(lzma.decompress((tmp_path / "lm.ngram").read_bytes()))
    (tmp_path / "lm.ngram").write_bytes(lzma.compress(save(damage(arrays))))
    with pytest.raises(ModelError, match=r"lm\.ngram: no sound n-gram"):
        read_packed(tmp_path / "lm.ngram")


def test_files_of_another_kind(tmp_path, monkeypatch):
    file = tmp_path / "lm.ngram"
    write_packed(file, estimate(SENTENCES, 7, 2), NAMES)
    sound = file.read_bytes()
    for content in (b"", b"text", sound[:-9], lzma.compress(b"text"), lzma.compress(b"\xff" * 8)):
        file.write_bytes(content)
        with pytest.raises(ModelError, match=r"lm\.ngram"):
            read_packed(file)
    with pytest.raises(ModelError, match="cannot be read"):
        read_packed(tmp_path / "missing.ngram")
    file.write_bytes(lzma.compress(bytes(2**20)))
    monkeypatch.setattr(packed_ngram, "MAX_BYTES", 2**17)
    with pytest.raises(ModelError, match=r"too large|[Mm]emory"):
        read_packed(file)


def test_words_that_do_not_fit(tmp_path):
    for word in ("", "a b", "a\nb"):
        with pytest.raises(ConfigError, match="no word for an n-gram"):
            write_packed(tmp_path / "lm.ngram", estimate([[0]], 1, 1), [word, "</s>", "<s>"])
