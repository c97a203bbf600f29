"""A language model that judges words as they are completed, against its scores of whole texts."""

from itertools import pairwise

import pytest
import torch

from kikitori.scorers.language_model import language_model
from kikitori.scorers.options import LMOptions
from kikitori.search.fusion.retokenizing import RetokenizingLM
from kikitori.search.fusion.words import WordLMScorer
from tests.tiny import tiny_bpe, tiny_llm, tiny_whisper_units

UNITS = tiny_whisper_units()
TEXTS = (" the fox, a dog", "the quick", " a", "", " over the lazy dog. The fox")


@pytest.fixture(scope="module")
def reader():
    others = tiny_bpe()
    return RetokenizingLM(language_model(tiny_llm("llama", others.size).double(), others, LMOptions("here")), UNITS)


def whole(reader, texts):
    with torch.inference_mode():
        return [row[0] for row in reader.lm.log_probs([[reader.tokens(tuple(each))] for each in texts]).scores]


@pytest.mark.parametrize("size", [1, 3, 100])
def test_in_the_end_it_is_the_score_of_the_text(reader, size):
    texts = [UNITS.encode(text) for text in TEXTS]
    scorer, size = WordLMScorer(reader, UNITS.size + 2), min(size, max(map(len, texts)))
    with torch.inference_mode():
        state, total = scorer.start(len(texts)), torch.zeros(len(texts), dtype=torch.float64)
        for begin, end in pairwise([*range(0, max(map(len, texts)), size), max(map(len, texts))]):
            parts = [text[begin:end] for text in texts]
            lengths = torch.tensor([len(part) for part in parts])
            labels = torch.tensor([[*part, *[0] * (end - begin - len(part))] for part in parts])
            following = scorer.log_probs(state, torch.arange(len(texts)))
            for row, part in enumerate(parts):
                begins = bool(part) and UNITS.tokenizer.convert_ids_to_tokens(part[0])[0] in "Ġ,."
                before = whole(reader, [texts[row][:begin]])[0] - reader_end(reader, texts[row][:begin])
                assert not part or following[row, part[0]] == pytest.approx(
                    before - float(total[row]) if begins else 0.0
                )
            state, given = scorer.extend(state, torch.arange(len(texts)), labels, lengths)
            total += given.sum(dim=1)
        total += scorer.log_probs(state, torch.arange(len(texts)))[:, -1]
    assert total.tolist() == pytest.approx(whole(reader, texts), abs=1e-9)


def reader_end(reader, labels):
    """Log-probability of the end behind a text."""
    tokens = torch.tensor([[*reader.lm.start, *reader.tokens(tuple(labels))]])
    return float(reader.lm.llm(tokens).logits[0, -1].log_softmax(-1)[reader.lm.eos_id])


def test_hypotheses_are_forked_and_reordered(reader):
    scorer, (first, second) = WordLMScorer(reader, UNITS.size), (UNITS.encode(text) for text in TEXTS[:2])
    with torch.inference_mode():
        state = scorer.start(2)
        state, _ = scorer.extend(
            state, torch.tensor([1, 0, 0]), torch.tensor([second[:1], first[:1], second[:1]]), ONES
        )
        state, _ = scorer.extend(state, torch.tensor([2, 0]), torch.tensor([first[:1], second[1:2]]), ONES[:2])
        added = torch.tensor([each.added for each in state.hypotheses], dtype=torch.float64)
        ends = added + scorer.log_probs(state, torch.arange(2))[:, -1]
    assert ends.tolist() == pytest.approx(whole(reader, [[second[0], first[0]], second[:2]]), abs=1e-9)


ONES = torch.ones(3, dtype=torch.int64)
