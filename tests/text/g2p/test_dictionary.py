import lzma

import pytest

from kikitori.errors import DataError
from kikitori.text.g2p.dictionary import Dictionary

CMUDICT = """;;; a comment
a AH0
a(2) EY1
aalborg AO1 L B AO0 R G # place, danish
object AA1 B JH EH0 K T
object(2) AA1 B JH EH2 K T
TEA  T IY1
"""


def write(folder, text):
    (folder / "words.dict").write_text(text)
    return folder / "words.dict"


def test_cmudict_without_stress(tmp_path):
    known = Dictionary(write(tmp_path, CMUDICT), stress=False).pronounce(["a", "Aalborg", "object", "tea", "coffee"])
    assert known == {
        "a": (("ah",), ("ey",)),
        "Aalborg": (("ao", "l", "b", "ao", "r", "g"),),
        "object": (("aa", "b", "jh", "eh", "k", "t"),),  # the two differ in stress alone
        "tea": (("t", "iy"),),
    }


def test_cmudict_with_stress(tmp_path):
    known = Dictionary(write(tmp_path, CMUDICT), stress=True).pronounce(["a", "object"])
    assert known["a"] == (("ah0",), ("ey1",))
    assert len(known["object"]) == 2


def test_lexicons_in_other_phones_keep_case_and_tones(tmp_path):
    (tmp_path / "own.tsv.xz").write_bytes(lzma.compress("# ours\nHaus\th ˈaʊ s\nma\tm a5 N\n".encode()))
    known = Dictionary(tmp_path / "own.tsv.xz", stress=False).pronounce(["Haus", "haus", "ma"])
    assert known == {"Haus": (("h", "aʊ", "s"),), "haus": (("h", "aʊ", "s"),), "ma": (("m", "a5", "N"),)}


@pytest.mark.parametrize(("text", "message"), [("a AH0\ntea\n", r"words\.dict:2: no pron"), ("# none\n", "is empty")])
def test_what_is_no_dictionary_is_refused(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        Dictionary(write(tmp_path, text), stress=False)
