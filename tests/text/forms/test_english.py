"""English beside Whisper's normalizer itself, of which ours leaves out the steps that change nothing."""

import random

import pytest

from kikitori.text.forms import english

PIECES = (
    *(
        "the",
        "colour",
        "and",
        "and a half",
        "half",
        "a",
        "one",
        "oh",
        "ten",
        "million",
        "3rd",
        "1,000",
        "$5",
        "50%",
        "x%",
    ),
    *("$", "%", "5.", ".", "e.g.", ",", "-", "'", "(", ")", "[", "<", ">", "!", "mr.", "don't", "i'd've", "he's been"),
    *("uh", "hmm", "em", "cause", "café", "st", "s", "double", "point", "per cent", "cents", "dollars", "\t", "\x1c"),
)


@pytest.mark.parametrize("forms", [english._english, english._open_asr_english])
@pytest.mark.parametrize("place", [0, 1])
def test_the_fast_way_is_the_plain_way(forms, place):
    def outcome(function, text):
        try:
            return " ".join(function(text).split())
        except (ArithmeticError, AssertionError, IndexError, TypeError, ValueError) as error:
            return type(error)

    fast = forms()[place]
    rng = random.Random(place)  # noqa: S311
    for _ in range(2000):
        text = rng.choice((" ", "  ", "")).join(rng.choice(PIECES) for _ in range(rng.randrange(1, 8)))
        assert outcome(fast, text) == outcome(fast.plain, text), text
