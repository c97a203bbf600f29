from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.align.join import ESTIMATED_S, join_words
from kikitori.types import Word


def words(text: str, start: float, each: float = 0.25) -> tuple[Word, ...]:
    return tuple(Word(word, start + n * each, start + n * each + 0.2) for n, word in enumerate(text.split()))


def joined(before, after, start, end, **more) -> str:
    first, second = join_words(before, after, start, end, **more)
    return " ".join(word.word for word in (*first, *second))


def test_what_both_have_stands_once():
    before, after = words("one two three four five", 0.0), words("four five six seven", 0.77)
    assert joined(before, after, 0.75, 1.25) == "one two three four five six seven"


def test_words_cut_off_are_taken_from_the_side_that_has_them_whole():
    before, after = words("he lived in a large hou", 0.0), words("ned a large house there", 0.5)
    assert joined(before, after, 0.5, 1.45) == "he lived in a large house there"


def test_marks_and_case_do_not_keep_words_apart():
    before, after = words("and so, It went.", 0.0), words("So it went on", 0.25)
    assert joined(before, after, 0.2, 1.0) == "and so, It went on"


def test_a_word_said_twice_at_other_times_is_not_one():
    before, after = words("no no no no", 0.0), words("yes no", 4.0)
    assert joined(before, after, 3.9, 4.2) == "no no no no yes no"


def test_without_agreement_the_middle_decides():
    before, after = words("a b c d", 0.0), words("x y z", 0.52)
    first, second = join_words(before, after, 0.5, 0.9)
    assert [word.word for word in first] == ["a", "b", "c"]
    assert [word.word for word in second] == ["y", "z"]


def test_estimated_times_may_be_further_apart():
    before, after = words("one two three four", 0.0), words("three four five", 1.6)
    assert joined(before, after, 0.5, 1.0, slack=ESTIMATED_S) == "one two three four five"


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30),
    st.floats(0.0, 6.0),
    st.floats(0.6, 1.5),
    st.floats(-0.05, 0.05),
)
def test_nothing_is_lost_or_doubled_where_both_are_right(said, start, shared, shift):
    """Each side has all words that are whole within it."""
    whole = words(" ".join(said), 0.0)
    end = start + shared
    before = tuple(word for word in whole if word.end <= end)
    after = tuple(Word(w.word, w.start + shift, w.end + shift) for w in whole if w.start >= start)
    first, second = join_words(before, after, start, end)
    found = [word.word for word in (*first, *second)]
    # Words that repeat within the slack can be taken for each other, and then the text is as long as one of the sides.
    if all(len({*near}) == len(near) for near in (said[at : at + 4] for at in range(len(said)))):
        assert len(found) == len(said)
    assert found[: len(first)] == said[: len(first)]
    assert found[len(first) :] == said[len(said) - len(second) :]
