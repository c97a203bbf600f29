import pytest

from kikitori.errors import DataError
from kikitori.ngram import write_ngram
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
