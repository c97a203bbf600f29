import io

import pytest
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from kikitori.errors import DataError
from kikitori.text.unit_training import character_units, sentencepiece_units
from kikitori.text.units import SPECIALS, WORD_MARK, TokenizerUnits
from tests.text.test_units import FORMS, TEXTS, sentences


@pytest.fixture(scope="module")
def pieces() -> TokenizerUnits:
    return sentencepiece_units(TEXTS, 120, "en_plain")


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=120,
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
        num_threads=1,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def test_vocabulary_is_that_of_sentencepiece(pieces, processor):
    vocabulary = pieces.tokenizer.get_vocab()
    assert pieces.size == processor.get_piece_size() == len(vocabulary) == 120
    assert all(vocabulary[processor.id_to_piece(i)] == i for i in range(120))
    assert (pieces.bos_id, pieces.eos_id) == (1, 2)


def test_segmentation_is_that_of_sentencepiece(pieces, processor):
    for text in [*TEXTS, *sentences(300, seed=1), "zebra quiz", "", "a", "stou  shi "]:
        mine, theirs = pieces.encode(text), processor.encode(text)
        if mine != theirs:  # ties may go either way
            score = processor.get_score
            assert sum(map(score, mine)) == pytest.approx(sum(map(score, theirs)), abs=1e-4), text
            assert 0 not in mine


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="abehiklmorstu xyz", max_size=40))
def test_any_text_is_segmented_as_by_sentencepiece(pieces, processor, text):
    mine, theirs = pieces.encode(text), processor.encode(text)
    assert [label for label in mine if label] == [label for label in theirs if label] or sum(
        map(processor.get_score, mine)
    ) == pytest.approx(sum(map(processor.get_score, theirs)), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="abehiklmorstuABEÀé ’'-,.\t", max_size=40))
def test_pieces_read_back_as_the_normalized_text(pieces, text):
    labels = pieces.encode(text)
    if 0 not in labels:
        assert pieces.decode(labels) == pieces.normalize(text)


def test_training_pieces_is_repeatable(pieces):
    again = sentencepiece_units(iter(["", *TEXTS]), 120, "en_plain")
    assert again.tokenizer.get_vocab() == pieces.tokenizer.get_vocab()


@pytest.mark.parametrize(("texts", "size"), [([], 10), (["", " "], 10), (["abcdefghijkl"], 5), (["ab"], 500)])
def test_too_little_text_for_pieces(texts, size):
    with pytest.raises(DataError, match=f"SentencePiece could not train {size} pieces .*; ask for fewer units"):
        sentencepiece_units(texts, size, "as_is")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.sampled_from(FORMS))
def test_characters_round_trip(text, form):
    units = character_units(["anchor", text], form)
    labels = units.encode(text)
    normalized = units.normalize(text)
    assume(not any(token in normalized for token in SPECIALS))
    assert units.decode(labels) == normalized
    assert units.normalize(normalized) == normalized
    assert all(2 < label < units.size for label in labels)
    assert len(labels) == len(normalized) + bool(normalized)  # the word mark stands before every word


def test_characters_are_sorted_after_specials_and_word_mark():
    units = character_units(["b a", "ca"], "as_is")
    assert sorted(units.tokenizer.get_vocab(), key=units.tokenizer.get_vocab().get) == [
        "<unk>", "<s>", "</s>", WORD_MARK, "a", "b", "c",
    ]  # fmt: skip
    assert units.encode("ab c") == [3, 4, 5, 3, 6]
    assert units.encode("axb") == [3, 4, 0, 5]
    assert units.decode([1, 3, 4, 0, 5, 2]) == "ab"
    assert units.encode("") == units.encode("   ") == []
    assert units.decode([]) == ""


def test_no_characters():
    with pytest.raises(DataError, match="no text to take characters from"):
        character_units(["", "123"], "en_plain")
