from importlib.util import find_spec

import pytest

from kikitori.errors import ConfigError
from kikitori.text.g2p.japanese import Kana, OpenJTalkG2P, kana_phones

SAID = {
    "さくら": "s a k u r a",
    "サクラ": "s a k u r a",
    "ｻｸﾗ": "s a k u r a",
    "ガッコウ": "g a cl k o o",
    "しんぶん": "sh i N b u N",
    "ちぢむ": "ch i j i m u",
    "つづく": "ts u z u k u",
    "とうきょう": "t o o ky o o",
    "せんせい": "s e N s e e",
    "おねえさん": "o n e e s a N",
    "コーヒー": "k o o h i i",
    "パーティー": "p a a t i i",
    "デュエット": "dy u e cl t o",
    "ヴァイオリン": "v a i o r i N",
    "ウィスキー": "w i s u k i i",
    "チェック": "ch e cl k u",
    "ジャム": "j a m u",
    "テューバ": "ty u u b a",
    "トゥ": "t u",
    "グァム": "gw a m u",
    "クヮ": "kw a",
    "イェス": "y e s u",
    "ファン": "f a N",
    "ツァー": "ts a a",
    "ヴュ": "by u",
    "ねぇ": "n e e",
    "さぁ": "s a a",
    "あっ": "a cl",
    "ンー": "N N",
    "ぁ": "a",
    "ゐをゑ": "i o e",
}
NOT_KANA = ["桜", "さくらA", "ー", "っー", "ゃ", "", "さゃ", "か、き", "ヶ"]


@pytest.mark.parametrize("word", SAID)
def test_kana(word):
    assert kana_phones(word, long_vowels=True) == tuple(SAID[word].split())


def test_the_letters_as_they_stand_are_the_second_pronunciation():
    assert Kana().pronounce(["おもう", "えい", "かい", "桜"]) == {
        "おもう": (("o", "m", "o", "o"), ("o", "m", "o", "u")),
        "えい": (("e", "e"), ("e", "i")),
        "かい": (("k", "a", "i"),),
    }


@pytest.mark.parametrize("word", NOT_KANA)
def test_what_is_not_kana_has_no_phones(word):
    assert kana_phones(word, long_vowels=True) is None


@pytest.mark.skipif(find_spec("pyopenjtalk") is not None, reason="pyopenjtalk is installed")
def test_open_jtalk_that_is_not_installed():
    with pytest.raises(ConfigError, match=r"pip install pyopenjtalk-plus"):
        OpenJTalkG2P()


@pytest.mark.skipif(find_spec("pyopenjtalk") is None, reason="pyopenjtalk is not installed")
def test_open_jtalk_agrees_with_the_table():
    words = [
        "さくら",
        "ガッコウ",
        "チェック",
        "デュエット",
        "ヴァイオリン",
        "ウィスキー",
        "グァム",
        "テューバ",
        "ジャム",
    ]
    spoken, table = OpenJTalkG2P().pronounce(words), Kana().pronounce(words)
    assert {word: ways[0] for word, ways in spoken.items()} == {word: ways[0] for word, ways in table.items()}
    assert OpenJTalkG2P().pronounce(["東京", "、"]) == {"東京": (("t", "o", "o", "ky", "o", "o"),)}
