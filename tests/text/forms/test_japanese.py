"""Japanese in the forms of other toolkits."""

import pytest

from kikitori.text.forms.japanese import is_spoken_kana, kanji_number
from kikitori.text.normalize import normalize


@pytest.mark.parametrize(
    ("number", "read"),
    [  # as num2words 0.5.14 has them
        ("0", "零"),
        ("00", "零"),
        ("007", "七"),
        ("11", "十一"),
        ("120", "百二十"),
        ("1001", "千一"),
        ("2024", "二千二十四"),
        ("10000", "一万"),
        ("10000000", "千万"),
        ("123456789", "一億二千三百四十五万六千七百八十九"),
        ("100000001", "一億一"),
        ("1" + 20 * "0", "一垓"),
        ("1.50", "一点五"),
        ("10.0", "十"),
        ("12.034", "十二点零三四"),
        ("5.", "五"),
        (".", None),
    ],
)
def test_numbers_as_they_are_read(number, read):
    if read is None:
        assert normalize("reazon_ja", number) == number
    else:
        assert kanji_number(*number.split(".")) == normalize("reazon_ja", number) == read


def test_numbers_without_a_name_are_read_by_digit():
    assert kanji_number("1" * 73) == "一" * 73


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("reazon_ja", "「えーと、ＡＢc」１，２００円です！", "えーとABc千二百円です"),
        ("reazon_ja", "二十 3・4〜ﾊﾟﾘ", "二十三・四〜ﾊﾟﾘ"),
        ("espnet_ja", "えーと、 ABc １２\u3000です。", "えーと、abc１２です。"),
    ],
)
def test_forms(name, text, expected):
    assert normalize(name, text) == expected


def test_letters_of_kana_as_they_sound():
    assert is_spoken_kana([*"キントー", "▁", "<unk>"])
    for letters in ("キント均", "きんとう", "キンa", "", "▁"):
        assert not is_spoken_kana(letters)
