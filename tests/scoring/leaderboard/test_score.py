from itertools import product

import pytest

from kikitori.errors import DataError
from kikitori.scoring.leaderboard.results import Result
from kikitori.scoring.leaderboard.score import Score, mean_wer, score, total_rtfx
from kikitori.scoring.metrics import count_errors


def result(text, pred_text, duration=2.0, time=0.5, **extra):
    return Result("u", duration, time, text, pred_text, extra)


def test_rates_of_a_corpus():
    found = score([result("The white paper, uh, is here.", "the whitepaper is"), result("it's a cat", "it is the cat")])
    assert (found.recordings, found.words) == (2, 9)
    assert (found.substitutions, found.deletions, found.insertions) == (1, 1, 0)
    assert found.wer == 22.22
    assert found.rtfx == 4.0


WORDS = ("a", "b", "ab", "c")


@pytest.mark.parametrize("written", list(product(WORDS, repeat=2)))
def test_compounds_cost_nothing_and_all_else_what_it_always_costs(written):
    """Against a search over all ways to join neighbours on either side."""

    def ways(words):
        if len(words) < 2:
            return {tuple(words)}
        rest = ways(words[1:])
        return {(words[0], *each) for each in rest} | {(words[0] + each[0], *each[1:]) for each in rest}

    for said in product(WORDS, repeat=3):
        found = score([result(" ".join(said), " ".join(written))])
        errors = found.substitutions + found.deletions + found.insertions
        plain = count_errors(said, written).errors
        best = min(count_errors(left, right).errors for left in ways(said) for right in ways(list(written)))
        assert best <= errors <= plain
        assert (errors == 0) == (best == 0)


def test_chunks_are_scored_as_the_recording():
    parts = [result("one two three", text, parent_id="p", chunk_index=i) for i, text in enumerate(("one two", "three"))]
    found = score(parts)
    assert (found.recordings, found.wer, found.audio_seconds, found.seconds) == (1, 0.0, 4.0, 1.0)


def test_speed_needs_all_times():
    assert score([result("a", "a"), result("a", "a", time=None)]).rtfx is None
    assert score([result("a", "a", time=0.0)]).rtfx is None
    with pytest.raises(DataError, match="no reference has a word"):
        score([result("uh", "a")])


def test_sets_together():
    scores = {"a": Score(1, 10.0, 0, 0, 0, 1, 100.0, 1.0), "b": Score(1, 5.25, 0, 0, 0, 1, 10.0, 10.0)}
    assert mean_wer(scores) == 7.62
    assert total_rtfx(scores) == 10.0
    assert total_rtfx(scores | {"c": Score(1, 5.0, 0, 0, 0, 1, None, None)}) is None
