"""The bonus of hotwords against counting them in whole texts."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.hotwords.letters import letter, letters_of, unit_letters
from kikitori.scorers.hotwords.scorer import HotwordScorer
from kikitori.text.token_bytes import token_bytes
from kikitori.text.unit_training import character_units
from tests.tiny import tiny_bpe, tiny_units

UNITS = {
    "characters": character_units(["ab ba"], "en_plain"),
    "pieces": tiny_units("pieces"),
    "bytes": tiny_bpe(),
    "bytes behind characters": tiny_bpe("characters"),
}


def letters_in(text, phrases, spaced):
    """Letters of all phrases in a text, by looking at every place."""
    mark = " " if spaced else ""
    text = f"{mark}{letters_of(text, spaced=spaced)}{mark}"
    counts = {p: sum(text.startswith(f"{mark}{p}{mark}", place) for place in range(len(text))) for p in {*phrases}}
    return sum(count * len(phrase.replace(" ", "")) for phrase, count in counts.items())


def text_of(units, labels):
    return b"".join(token_bytes(units)[label] or b"" for label in labels).decode(errors="replace")


def counted(scorer, labels):
    """What the scorer gives to some labels and the end, one by one and all at once, which must agree."""
    state, total = scorer.start(1), 0.0
    row, one = torch.tensor([0]), torch.tensor([1])
    for label in labels:
        offered = float(scorer.log_probs(state, row)[0, label])
        state, given = scorer.extend(state, row, torch.tensor([[label]]), one)
        assert given.tolist() == [[offered]]
        total += offered
    total += float(scorer.log_probs(state, row)[0, -1])
    whole, given = scorer.extend(scorer.start(1), row, torch.tensor([[*labels, 0]]), torch.tensor([len(labels)]))
    assert float(given.sum() + scorer.log_probs(whole, row)[0, -1]) == total
    return total


@pytest.mark.parametrize("spaced", [True, False])
@pytest.mark.parametrize(
    "phrases", [["ab"], ["ab", "ab ab"], ["a", "aba", "ba b"], ["aa a", "a a"], ["ab ba", "ba"], []]
)
def test_every_text_gets_the_letters_of_its_phrases(phrases, spaced):
    units = UNITS["characters"]
    phrases = [letters_of(each, spaced=spaced) for each in phrases]
    scorer = HotwordScorer([phrases], units, units.size, spaced=spaced)
    labels = units.encode("a b")
    marks = [*dict.fromkeys(labels)]
    for size in range(5):
        for sequence in product(marks, repeat=size):
            assert counted(scorer, sequence) == letters_in(text_of(units, sequence), phrases, spaced)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(sorted(UNITS)), st.booleans())
def test_it_does_not_matter_how_a_text_is_cut_into_labels(data, kind, spaced):
    units = UNITS[kind]
    contents = token_bytes(units)
    texts = ["The quick", "a foX", "東京", "é", "ＯＮ", "it's", "brown-", "\u0301", ""]
    pool = sorted({label for text in texts for label in units.encode(text)})
    halves = [label for label in range(units.size) if contents[label] and contents[label][0] >= 0x80][:60]
    sequence = data.draw(st.lists(st.sampled_from(pool) | st.sampled_from(halves or pool), max_size=8))
    words = letters_of(text_of(units, sequence)).split() or ["x"]
    drawn = data.draw(st.lists(st.lists(st.sampled_from([*words, "the"]), min_size=1, max_size=2), max_size=3))
    phrases = [*{letters_of(" ".join(each), spaced=spaced) for each in drawn}]
    scorer = HotwordScorer([phrases], units, units.size, spaced=spaced)
    assert counted(scorer, sequence) == letters_in(text_of(units, sequence), phrases, spaced)


def test_rows_are_reordered_forked_and_dropped_and_each_utterance_has_its_phrases():
    units = UNITS["bytes"]
    a, fox, other = units.encode("the quick"), units.encode("the fox"), units.encode("the ox")
    scorer = HotwordScorer([["the quick"], ["the fox", "fox"]], units, units.size + 3)
    state = scorer.start(2)
    rows, size = torch.tensor([1, 0, 1, 0]), max(map(len, (a, fox, other)))
    labels = torch.tensor([[*each, *[0] * (size - len(each))] for each in (fox, a, other, fox)])
    state, given = scorer.extend(state, rows, labels, torch.tensor([len(fox), len(a), len(other), len(fox)]))
    ends = scorer.log_probs(state, torch.arange(4))
    assert ends.shape == (4, units.size + 4)
    assert not ends[:, units.size : -1].any()  # labels beyond the units write nothing
    assert (given.sum(dim=1) + ends[:, -1]).tolist() == [9.0, 8.0, 0.0, 0.0]
    assert torch.equal(scorer.log_probs(state, torch.tensor([2, 0])), ends[[2, 0]])
    narrow = HotwordScorer([["the quick"], []], units, 7)
    assert torch.equal(
        narrow.log_probs(narrow.start(2), torch.tensor([0]))[0, :-1],
        scorer.log_probs(scorer.start(2), torch.tensor([0]))[0, :7],
    )


def test_letters_of_labels_are_those_of_their_text():
    units = UNITS["bytes"]
    letters, written = unit_letters(units), unit_letters(units).behind()
    for label, content in enumerate(token_bytes(units)):
        part = written.numbers[written.offsets[label] : written.offsets[label + 1]]
        text = "".join(written.alphabet[number] for number in part)
        assert text == letters.after(b"", label)[0]
        if content is not None and not written.rests[label]:
            assert text == "".join(map(letter, content.decode(errors="replace")))
    assert unit_letters(units) is letters
