"""Which sounds are fillers, and which look like them."""

import pytest

from kikitori.text.forms.fillers import without_fillers


@pytest.mark.parametrize(
    ("language", "text", "plain", "removed"),
    [
        ("en", "Uh, I um think, er, that's uhm, it.", "I think, that's it.", 4),
        ("en-US", "UM HMM THE UMBRELLA", "THE UMBRELLA", 2),
        ("en", "uh-huh, 5 mm wide, mm-hmm, the ER, um's", "uh-huh, 5 mm wide, mm-hmm, the ER, um's", 0),
        ("en", "um um, um", "", 3),
        ("ja", "えーと、今日はですね、あのー、晴れです", "今日はですね、晴れです", 2),
        ("ja", "ねえー聞いて えー あのーえーと 行く", "ねえー聞いて 行く", 3),
        ("de", "um eins, äh", "um eins, äh", 0),
        (None, "um", "um", 0),
    ],
)
def test_what_stands_alone_is_left_out(language, text, plain, removed):
    assert without_fillers(text, language) == (plain, removed)


def test_long_texts_take_no_time():
    assert without_fillers("um " * 10_000 + "x", "en") == ("x", 10_000)
    assert without_fillers("um" * 10_000, "en")[1] == without_fillers("えー" * 10_000 + "x", "ja")[1] == 0
