import pytest
from hypothesis import given
from hypothesis import strategies as st

from kikitori.text.g2p.english import EnglishWords

STEMS = {
    "box": "b aa k s",
    "boy": "b oy",
    "cat": "k ae t",
    "color": "k ah l er",
    "form": "f ao r m",
    "gentle": "jh eh n t ah l",
    "hope": "hh ow p",
    "hurry": "hh er iy",
    "land": "l ae n d",
    "listen": "l ih s ah n",
    "moon": "m uw n",
    "receive": "r ih s iy v",
    "realize": "r iy l ay z",
    "reserve": "r ih z er v",
    "sitting": "s ih t ih ng",
    "stop": "s t aa p",
    "travel": "t r ae v ah l",
    "real": "r iy l",
    "wood": "w uh d",
    "shed": "sh eh d",
}
DICTIONARY = {word: (tuple(phones.split()),) for word, phones in STEMS.items()}
FORMED = {
    "cat's": "k ae t s",
    "box's": "b aa k s ih z",
    "boys": "b oy z",
    "boxes": "b aa k s ih z",
    "hopes": "hh ow p s",
    "hurries": "hh er iy z",
    "hoped": "hh ow p t",
    "stopped": "s t aa p t",
    "landed": "l ae n d ih d",
    "form'd": "f ao r m d",
    "receiv'd": "r ih s iy v d",
    "hurried": "hh er iy d",
    "travelling": "t r ae v ah l ih ng",
    "sittin": "s ih t ih n",
    "gently": "jh eh n t l iy",
    "really": "r iy l iy",
    "hurriedly": "hh er iy d l iy",
    "unreservedly": "ah n r ih z er v ih d l iy",
    "hopelessness": "hh ow p l ah s n ah s",
    "hopefully": "hh ow p f ah l iy",
    "receivable": "r ih s iy v ah b ah l",
    "landsman": "l ae n d z m ah n",
    "colourless": "k ah l er l ah s",
    "realising": "r iy l ay z ih ng",
    "traveller's": "t r ae v ah l er z",
    "woodshed": "w uh d sh eh d",
}
UNKNOWN = ("moonland", "xing", "'s", "s", "in", "ss", "hayseed", "", "un", "unx", "teas", "y's")


@pytest.mark.parametrize("word", FORMED)
def test_words_are_said_as_what_they_are_formed_of(word):
    source = EnglishWords(DICTIONARY, ["wood", "shed", "land"])
    assert source.pronounce([word]) == {word: (tuple(FORMED[word].split()),)}


def test_compounds_are_made_of_listed_words_alone():
    assert EnglishWords(DICTIONARY, ["wood", "shed", "land"]).pronounce(UNKNOWN) == {}
    assert list(EnglishWords(DICTIONARY, ["moon", "land"]).pronounce(UNKNOWN)) == ["moonland"]


def test_all_pronunciations_of_the_stem_count():
    either = {"either": (("iy", "dh", "er"), ("ay", "dh", "er"))}
    assert len(EnglishWords(either, []).pronounce(["either's"])["either's"]) == 2


def test_what_is_added_has_marks_of_stress_where_the_stem_has():
    marked = {"hope": (("hh", "ow1", "p"),), "gentle": (("jh", "eh1", "n", "t", "ah0", "l"),)}
    known = EnglishWords(marked, []).pronounce(["hopeless", "unhoped", "gently"])
    assert known == {
        "hopeless": (("hh", "ow1", "p", "l", "ah0", "s"),),
        "unhoped": (("ah0", "n", "hh", "ow1", "p", "t"),),
        "gently": (("jh", "eh1", "n", "t", "l", "iy0"),),
    }


@given(st.text("abeinglouryst'd", max_size=12))
def test_any_word_comes_to_an_end(word):
    for ways in EnglishWords(DICTIONARY, []).pronounce([word]).values():
        assert all(len(way) > 1 for way in ways)
