"""The rows of the speech LLM's searches: what they compare writes the same, and drafts have the slips they should."""

import pytest
import torch

from peers import speculative
from peers.rescoring import SMALL

pytestmark = pytest.mark.slow


def test_all_contenders_write_the_same():
    llm = speculative.walking_llm(SMALL, torch.float32)
    rows = list(speculative.single_rows(llm, "small", 5, (0.0, 0.2)))
    names = ["kikitori", "kikitori greedy", "generate", "plain after a slip"]
    assert [row.name for row in rows] == names * 2
    assert all(row.note.endswith(" 0 labels differ") for row in rows)
    passes = [float(row.note.split()[0]) for row in rows]
    assert passes[:4] == [0.0, 40.0, 40.0, 0.0]
    assert 4.0 <= passes[4] < passes[7] < 40.0


def test_walks_end_where_they_should():
    llm = speculative.walking_llm(SMALL, torch.float32)
    prefix = speculative.walking_prefix(llm, [20, 9, 14], [3, 12, 0])
    expected = [speculative.walk(length, SMALL.vocabulary)[1:] for length in (3, 12, 0)]
    assert [len(labels) for labels in expected] == [3, 12, 0]
    found = speculative.generate(llm, prefix, 12)
    assert [[*row.labels] for row in found] == expected
    assert len(set(expected[1])) == 12


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.3])
def test_drafts_have_their_slips(rate):
    labels, slips, lengths = list(range(100, 140)), [], []
    for seed in range(200):
        draft = speculative.corrupt(labels, rate, 10**6, seed)
        assert draft == speculative.corrupt(labels, rate, 10**6, seed)
        right = [label for label in draft if label in labels]
        slips.append(len(draft) - len(right) + len(set(labels) - set(draft)))
        lengths.append(len(draft))
        assert right == sorted(right)
    # A substitution leaves one label out and puts one in, the others do one of the two.
    assert sum(slips) / 200 == pytest.approx(40 * rate * 1.6, rel=0.1)
    assert sum(lengths) / 200 == pytest.approx(40, abs=1)
