import pytest

from kikitori.errors import DataError
from kikitori.text.ngram.model import load_ngram, score_text
from kikitori.workflows.ngram import write_ngram, write_word_ngram
from tests.tiny import TEXTS, tiny_bpe, tiny_units


def unigrams(file):
    """Words of the file with their log10 probabilities."""
    lines = file.read_text().split("\\1-grams:\n")[1].split("\n\n")[0].splitlines()
    return {line.split("\t")[1]: float(line.split("\t")[0]) for line in lines}


@pytest.mark.parametrize("units", [tiny_units(), tiny_units("pieces"), tiny_bpe("bytes"), tiny_bpe("characters")])
def test_every_label_is_a_word(units, tmp_path):
    counts = write_ngram(tmp_path / "lm.arpa", units, ["", *TEXTS], order=3)
    found = unigrams(tmp_path / "lm.arpa")
    assert {*found} == {*units.tokenizer.get_vocab(), "<unk>", "<s>", "</s>"}
    assert counts[0] == len(found)
    assert sum(10**log_prob for log_prob in found.values()) == pytest.approx(1.0, abs=1e-5)
    words = units.tokenizer.convert_ids_to_tokens(units.encode(TEXTS[1]))
    assert " ".join(["<s>", *words[:2]]) in (tmp_path / "lm.arpa").read_text()


def test_labels_that_a_file_cannot_hold_are_unknown(tmp_path):
    units = tiny_bpe(extra=("two words",))
    write_ngram(tmp_path / "lm.arpa", units, TEXTS, order=2)
    assert "two words" not in (tmp_path / "lm.arpa").read_text()


def test_nothing_to_count(tmp_path):
    with pytest.raises(DataError, match="no text"):
        write_ngram(tmp_path / "lm.arpa", tiny_units(), ["", "!?"])
    assert not (tmp_path / "lm.arpa").exists()


BOOKS = ["The dog, the fox.", "a dog", "", "THE dog", "no fox\u00a0there"]


def test_words_of_a_text(tmp_path):
    counts = write_word_ngram(tmp_path / "lm.ngram", BOOKS, order=3, text_form="en_plain")
    ngram = load_ngram(tmp_path / "lm.ngram")
    assert ngram.words == ("<unk>", "dog", "the", "fox", "a", "no", "there", "</s>", "<s>")
    assert (counts[0], sum(counts)) == (9, len(ngram.automaton.arc_words))
    write_word_ngram(tmp_path / "lm.arpa", BOOKS, order=3, text_form="en_plain")
    as_text = load_ngram(tmp_path / "lm.arpa")
    assert as_text.words == ngram.words
    assert score_text(as_text, ["the", "fox"]) == pytest.approx(score_text(ngram, ["the", "fox"]), abs=0.05)
    write_word_ngram(tmp_path / "as_is.ngram", BOOKS, order=2)
    assert {"dog,", "THE", "The"} < {*load_ngram(tmp_path / "as_is.ngram").words}


def test_vocabularies(tmp_path):
    file = tmp_path / "lm.ngram"
    vocabulary = ["zebra", "dog", "<s>", "<unk>", "two words", "the"]
    write_word_ngram(file, BOOKS, vocabulary=vocabulary, order=2, text_form="en_plain")
    ngram = load_ngram(file)
    assert ngram.words == ("<unk>", "dog", "the", "zebra", "</s>", "<s>")
    assert score_text(ngram, ["fox"]) > score_text(ngram, ["zebra"])  # many words are unknown
    write_word_ngram(file, BOOKS, vocabulary=vocabulary, max_words=1, order=2, text_form="en_plain")
    assert load_ngram(file).words == ("<unk>", "dog", "</s>", "<s>")


def test_rare_and_needless_word_n_grams_are_left_out(tmp_path):
    def size(**settings):
        return sum(write_word_ngram(tmp_path / "lm.ngram", BOOKS, order=3, text_form="en_plain", **settings))

    assert size(min_count=2) < size()
    assert size(prune=0.05) < size()


def test_no_words_to_count(tmp_path):
    with pytest.raises(DataError, match="no text"):
        write_word_ngram(tmp_path / "lm.ngram", ["", "!?"], text_form="en_plain")
    assert not (tmp_path / "lm.ngram").exists()


def test_a_vocabulary_in_another_form_than_the_text_is_refused(tmp_path):
    text = " ".join(f"word{i}" for i in range(12))
    with pytest.raises(DataError, match=r"lm\.arpa: .*0 of 12 are known.*capitals"):
        write_word_ngram(tmp_path / "lm.arpa", [text], vocabulary=text.upper().split(), order=2)
