from dataclasses import dataclass
from math import inf

import torch

from kikitori.search.autoregressive.filters import Row, apply_filters, decoder_filters, suppress_first

ROWS = [Row(0, ()), Row(1, (2,)), Row(0, ())]


@dataclass(frozen=True)
class Rules:
    eos_id: int
    suppressed: tuple[int, ...] = ()
    suppressed_first: tuple[int, ...] = ()


def ruled_out(filters, columns, rows=ROWS):
    """The columns without a score in each row; what was given stays as it is."""
    scores = torch.zeros(len(rows), columns)
    found = apply_filters(filters, scores, rows)
    assert not scores.any()
    return [(row == -inf).nonzero()[:, 0].tolist() for row in found]


def test_labels_that_no_transcript_begins_with():
    assert ruled_out([suppress_first([1, 3])], 5) == [[1, 3], [], [1, 3]]
    assert ruled_out([suppress_first([1])], 5, ROWS[1:2]) == [[]]


def test_a_decoder_without_rules_has_no_filters():
    assert decoder_filters(Rules(2), 5, 2) == []


def test_rules_of_a_decoder_where_eos_is_a_label():
    rules = Rules(eos_id=2, suppressed=(0, 4), suppressed_first=(1, 2))
    assert ruled_out(decoder_filters(rules, 5, 2), 5) == [[0, 1, 2, 4], [0, 4], [0, 1, 2, 4]]


def test_rules_of_a_decoder_where_the_end_has_the_last_column_and_labels_are_fewer():
    rules = Rules(eos_id=2, suppressed=(0, 9), suppressed_first=(1, 2))
    assert ruled_out(decoder_filters(rules, 5, -1), 6) == [[0, 1, 5], [0], [0, 1, 5]]
