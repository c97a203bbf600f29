import pytest

from kikitori.errors import ConfigError, DataError
from kikitori.text.g2p.sources import Contribution, build_lexicon, open_sources


class Known:
    def __init__(self, name, **ways):
        self.name, self.ways = name, ways

    def pronounce(self, words):
        assert not set(words) & {"known before"}
        return {word: (tuple(self.ways[word].split()),) for word in words if word in self.ways}


def test_the_first_source_that_knows_a_word_says_it():
    first, second = Known("first", tea="t iy"), Known("second", tea="t eh", the="dh ax", green="g r iy n")
    built = build_lexicon(["the", "green", "tea", "tea", "cup"], [first, second])
    assert built.lexicon.pronunciations == {
        "tea": (("t", "iy"),),
        "the": (("dh", "ax"),),
        "green": (("g", "r", "iy", "n"),),
    }
    assert built.contributions == (
        Contribution("first", 1, ("iy", "t")),
        Contribution("second", 2, ("ax", "dh", "g", "n", "r")),
    )
    assert built.missing == ("cup",)


def test_a_lexicon_without_words_is_refused():
    with pytest.raises(DataError, match="no word is known"):
        build_lexicon(["tea"], [Known("none")])


def test_sources_by_name(tmp_path):
    (tmp_path / "own.dict").write_text("foxes F AO1 K S AH0 Z\n")
    (tmp_path / "cmudict.dict").write_text("fox F AA1 K S\nfoxes F AA1 K S IH0 Z\n")
    names = [str(tmp_path / "own.dict"), str(tmp_path / "cmudict.dict"), "english", "flite", "espeak-ng:de", "kana"]
    sources = open_sources(names, ["fox's", "foxes's"], stress=False)
    assert [source.name for source in sources] == ["own.dict", "cmudict.dict", *names[2:]]
    assert sources[2].pronounce(["fox's", "foxes's"]) == {
        "fox's": (("f", "aa", "k", "s", "ih", "z"),),
        "foxes's": (("f", "ao", "k", "s", "ah", "z", "ih", "z"),),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [("english", "no dictionary goes before it"), ("none.dict", "name a file or english"), ("espeak-ng", "no voice")],
)
def test_sources_that_are_none(name, message):
    with pytest.raises(ConfigError, match=message):
        open_sources([name], [], stress=False)
