"""Kana as they sound: one spelling for one sound."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kikitori.text.kana import spoken_kana


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("きんとう", "キントー"),
        ("キントー", "キントー"),
        ("せんじょうざい", "センジョーザイ"),
        ("おおきい", "オーキー"),
        ("ガク’セー", "ガクセー"),
        ("コオリ、キャア", "コーリキャー"),
        ("つづく", "ツズク"),
        ("ｷｮｳ", "キョー"),
        ("お化け", "オケ"),
        ("あいうえ", "アイウエ"),
        ("ー", ""),
        ("ンー", "ン"),
        ("", ""),
    ],
)
def test_what_sounds_alike_is_written_alike(text, spoken):
    assert spoken_kana(text) == spoken


@given(st.text(alphabet="あいうえおかきくけこんーゃょっアオウヲ、 a漢"))
def test_it_is_done_once(text):
    assert spoken_kana(spoken_kana(text)) == spoken_kana(text)
