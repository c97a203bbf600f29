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


@pytest.mark.parametrize(
    "text",
    [
        "<eps> SIL\n!SIL SIL\n<SPOKEN_NOISE> SPN\nSIL SIL\nTEA T IY1\nTEA T EY1 #1\n",  # Kaldi's lexicon.txt
        "[noise] NSN\ntea\t0.2 t ey1\ntea\t1.0 t iy1\n",  # lexiconp.txt
        "tea 1.0 0.2 1.0 1.0 T IY1\ntea 0.5 0.2 1.0 1.0 T EY1\n",  # lexiconp_silprob.txt
        "TEA  T IY1\nTEA(1)  T EY1\n",  # CMUdict of old
    ],
)
def test_dictionaries_as_other_toolkits_write_them(tmp_path, text):
    assert Dictionary(write(tmp_path, text), stress=False).entries == {"tea": (("t", "iy"), ("t", "ey"))}


def test_cmudict_in_latin_1(tmp_path):
    (tmp_path / "cmudict-0.7b").write_bytes(";;; # CMUdict\nCAFÉ  K AH0 F EY1\n".encode("latin-1"))
    known = Dictionary(tmp_path / "cmudict-0.7b", stress=False).pronounce(["café"])
    assert known == {"café": (("k", "ah", "f", "ey"),)}
    (tmp_path / "other.dict").write_bytes("café k a f e\n".encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        Dictionary(tmp_path / "other.dict", stress=False)


def test_apostrophes_and_what_cannot_be_seen_count_for_nothing(tmp_path):
    source = Dictionary(write(tmp_path, "\ufeffdon't D OW1 N T\nMOTHER’S M AH1 DH ER0 Z\n"), stress=False)
    assert [*source.pronounce(["don’t", "don't", "Mother's", "motherʼs"])] == ["don’t", "don't", "Mother's", "motherʼs"]
