"""Tokens of a decoder as a CTC head over characters hears them, against sums over all CTC paths."""

from math import inf

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kikitori.errors import ModelError
from kikitori.scorers.ctc.prefix import CTCPrefixScorer, ctc_outputs
from kikitori.scorers.ctc.spelled import SpelledCTCScorer
from kikitori.scorers.ctc.speller import Place, TokenSpeller
from kikitori.text.token_bytes import token_bytes
from kikitori.text.unit_training import character_units, sentencepiece_units
from kikitori.text.units import TokenizerUnits
from tests.search.ctc.test_beam import every_path, random_log_probs

TEXTS = [
    " The cat — don't go, \"John's\" café; naïve!",
    "O'Brien’s 'tis the boys' toys.",
    " rock-and-roll\nco-operate  U.S.A. e.g.",
    "♪ hello ♪",
    "",
]


def byte_level_units(*merged):
    """A byte-level BPE with all single bytes and some longer tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate([*alphabet, *merged, "<|end|>"])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.decoder, backend.pre_tokenizer = decoders.ByteLevel(), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")  # noqa: S106
    tokenizer.add_tokens(["<|1.50|>"], special_tokens=True)
    return TokenizerUnits(tokenizer)


CHARACTERS = character_units([*TEXTS, "abcdefghijklmnopqrstuvwxyz"], "en_plain")


def spelt(speller, tokens):
    place, labels = speller.start, []
    for token in tokens:
        added, place = speller.spell(place, token)
        if added is None:
            return None
        labels += added
    return labels


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("units", ["bytes", "pieces"])
def test_a_text_has_the_letters_that_training_gave_it(text, units):
    decoder = byte_level_units() if units == "bytes" else sentencepiece_units(TEXTS * 30, 48, "as_is")
    speller = TokenSpeller(decoder, CHARACTERS)
    assert spelt(speller, decoder.encode(text)) == CHARACTERS.encode(text)


def test_labels_beyond_the_tokenizer_cannot_be_written():
    units = byte_level_units()
    assert spelt(TokenSpeller(units, CHARACTERS), [units.size]) is None


@pytest.mark.parametrize("text", ["20 cats", "日本", "½", "наш"])
def test_what_ctc_cannot_write_is_impossible(text):
    units = byte_level_units()
    assert spelt(TokenSpeller(units, CHARACTERS), units.encode(text)) is None


def test_cased_characters_keep_case_and_punctuation():
    cased = character_units(["The cat, don't!"], "as_is")
    units = byte_level_units()
    speller = TokenSpeller(units, cased)
    for text in ("The cat, don't!", "the cat", "The-cat"):
        assert spelt(speller, units.encode(text)) == cased.encode(text.replace("-", " "))
    assert spelt(speller, units.encode("CAN")) == cased.encode("can")  # folded, where the case is unknown


def test_special_tokens_are_impossible_and_timestamps_free():
    units = byte_level_units("Ġcat")
    speller = TokenSpeller(units, CHARACTERS)
    end, timestamp = units.special_id("<|end|>"), units.special_id("<|1.50|>")
    assert token_bytes(units)[units.special_id("Ġcat")] == b" cat"
    assert speller.spell(speller.start, end).labels is None
    assert speller.spell(speller.start, timestamp) == ((), speller.start)


def test_a_character_may_be_divided():
    units = byte_level_units()
    speller = TokenSpeller(units, CHARACTERS)
    first, second = units.encode("é")
    assert speller.spell(Place("", b""), first) == ((), Place("", b"\xc3"))
    assert speller.spell(Place("", b"\xc3"), second) == (tuple(CHARACTERS.encode("e")[1:]), Place("", b""))


def test_a_head_over_longer_units_is_refused():
    with pytest.raises(ModelError, match="units of several characters such as"):
        TokenSpeller(byte_level_units(), sentencepiece_units(TEXTS * 30, 48, "as_is"))


def test_a_head_over_kana_as_they_sound_is_refused():
    with pytest.raises(ModelError, match="the CTC head writes kana as they sound, and the decoder kanji too"):
        TokenSpeller(byte_level_units(), character_units(["キントー ガッコー"], "as_is"))


LETTERS = character_units(["ab"], "en_plain")


@pytest.fixture(scope="module")
def small():
    """A decoder's tokens over the letters a and b: their bytes, longer ones, and what is free or impossible."""
    units = byte_level_units("ab", "Ġa", "Ġab")
    return units, [units.special_id(token) for token in ("a", "b", "ab", "Ġa", "Ġab", "Ġ", ",", "1", "A")]


def log_sum(values):
    return float(torch.tensor([-inf, *values], dtype=torch.float64).logsumexp(0))


@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_all_paths(small, seed):
    units, tokens = small
    marks = {name: LETTERS.special_id(name) for name in "▁ab"}
    log_probs = random_log_probs(5, LETTERS.size, seed)
    sequences = every_path(log_probs, "sum")
    speller = TokenSpeller(units, LETTERS)
    scorer = SpelledCTCScorer(CTCPrefixScorer(ctc_outputs([log_probs], LETTERS.size)), speller, units.size)

    def prefix(labels):
        return log_sum(score for other, score in sequences.items() if other[: len(labels)] == tuple(labels))

    state, row, written = scorer.start(1), torch.tensor([0]), []
    asked = torch.tensor([[*tokens, -1]])
    for token in (None, tokens[0], tokens[6], tokens[1]):
        if token is not None:
            before = prefix(spelt(speller, written))
            written.append(token)
            state, given = scorer.extend(state, row, torch.tensor([[token]]), torch.tensor([1]))
            assert float(given) == pytest.approx(prefix(spelt(speller, written)) - before, abs=1e-9)
        now = prefix(spelt(speller, written))
        found = scorer.log_probs_of(state, row, asked)[0].tolist()
        for each, score in zip(tokens, found, strict=False):
            letters = spelt(speller, [*written, each])
            expected = -inf if letters is None or now == -inf else prefix(letters) - now
            assert score == pytest.approx(expected, abs=1e-9), (written, each)
        end = sequences.get(tuple(spelt(speller, written)), -inf)
        assert found[-2:] == [-inf, pytest.approx(end - now, abs=1e-9)]
        every = scorer.log_probs(state, row)[0]
        assert every[tokens].tolist() == pytest.approx(found[: len(tokens)])
    assert marks["▁"] in spelt(speller, written)


def test_states_fork_reorder_and_grow_by_several_tokens(small):
    units, tokens = small
    log_probs = [random_log_probs(6, LETTERS.size, seed) for seed in (1, 2)]
    outputs = ctc_outputs(log_probs, LETTERS.size)
    scorer = SpelledCTCScorer(CTCPrefixScorer(outputs), TokenSpeller(units, LETTERS), units.size)
    start = scorer.start(2)
    rows = torch.tensor([1, 0, 1])
    labels = torch.tensor([[tokens[2], tokens[6], tokens[4]], [tokens[0], tokens[7], tokens[1]], [tokens[3]] * 3])
    lengths = torch.tensor([3, 3, 0])
    together, given = scorer.extend(start, rows, labels, lengths)
    for row, count in enumerate(lengths.tolist()):
        alone = scorer.extend(start, rows[row : row + 1], labels[:1, :0], torch.tensor([0]))[0]
        for column in range(count):
            step = labels[row : row + 1, column : column + 1]
            alone, one = scorer.extend(alone, torch.tensor([0]), step, torch.tensor([1]))
            assert float(given[row, column]) == pytest.approx(float(one), abs=1e-9)
        ends = [
            scorer.log_probs_of(s, torch.tensor([r]), torch.tensor([tokens])) for s, r in ((together, row), (alone, 0))
        ]
        torch.testing.assert_close(*ends)
    assert given[2].tolist() == [0.0, 0.0, 0.0]
    assert given[1, 1] == -inf
    assert scorer.likeliest(together, torch.tensor([0, 2]), 2).tolist() == [[-1, -1]] * 2
