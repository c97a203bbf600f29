"""The n-gram scorer against KenLM itself, and against the estimate that wrote the file."""

import gzip
import sys
from math import log

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ModelError
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.ngram import NGramJudge, NGramScorer, is_ngram, label_words, load_ngram
from kikitori.scorers.options import LMOptions
from kikitori.scorers.prior import length_scorer
from kikitori.search.fusion.shallow import shallow_fusion
from kikitori.search.options import ShallowFusionSearch
from kikitori.search.rescore import lm_scorer, with_scores
from kikitori.text.ngram.arpa import write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.model import load_word_ngram, score_text
from kikitori.text.ngram.packed import write_packed
from kikitori.types import Hypothesis
from tests.search.ctc.test_beam import every_path, random_log_probs
from tests.search.flat import flat
from tests.text.ngram.test_kneser_ney import SENTENCES, backed_off, histories, read
from tests.tiny import tiny_bpe, tiny_llm, tiny_units

WORDS = ("<unk>", *"abcdef")
ALL = {"beam": 100_000, "nbest": 100_000, "score_beam": None, "frame_labels": None, "min_log_prob": None}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("ngram") / "lm.arpa"
    write_arpa(path, estimate(SENTENCES, 7, 3), WORDS)
    return path


@pytest.fixture(scope="module")
def model(file):
    pytest.importorskip("kenlm")
    return load_ngram(file)


def scorer(model, words=WORDS):
    return NGramScorer(model, words)


def from_scratch(model, words):
    return log(10) * model.score(" ".join(words))


def test_what_was_written_reads_back_through_kenlm(model):
    tables, found = read(estimate(SENTENCES, 7, 3)), scorer(model)
    assert model.order == 3
    for history in histories(4, 7):
        if history and history[0] == 8:
            state, _ = found.extend(
                found.start(1), torch.tensor([0]), torch.tensor([[*history[1:], 0]]), torch.tensor([len(history) - 1])
            )
            expected = [log(10) * backed_off(tables, history[-2:], word) for word in range(8)]
            assert found.log_probs(state, torch.tensor([0]))[0].tolist() == pytest.approx(expected, abs=1e-5)


step_of_a_search = st.lists(
    st.tuples(st.integers(0, 99), st.lists(st.integers(0, 6), max_size=4)), min_size=1, max_size=5
)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 3), st.lists(step_of_a_search, max_size=5))
def test_any_forks_orders_and_lengths_are_scored_as_from_scratch(model, batch, steps):
    total = scorer(model)
    states = [(total.start(batch), [()] * batch, [0.0] * batch)]
    for step in steps:
        state, hypotheses, sums = states[step[0][0] % len(states)]  # also an older one: states stay as they were
        rows = [row % len(hypotheses) for row, _ in step]
        lengths = torch.tensor([len(labels) for _, labels in step])
        labels = torch.full((len(step), max(int(lengths.max()), 1)), 3)
        for place, (_, more) in enumerate(step):
            labels[place, : len(more)] = torch.tensor(more, dtype=torch.long)
        extended, scores = total.extend(state, torch.tensor(rows), labels, lengths)
        assert all(scores[place, length:].eq(0).all() for place, length in enumerate(lengths.tolist()))
        after = [(*hypotheses[row], *more) for row, (_, more) in zip(rows, step, strict=True)]
        states.append((extended, after, [sums[row] + float(new.sum()) for row, new in zip(rows, scores, strict=True)]))
    for state, hypotheses, sums in states:
        following = total.log_probs(state, torch.arange(len(hypotheses)))
        for labels, before, row in zip(hypotheses, sums, following, strict=True):
            words = [WORDS[label] for label in labels]
            assert before + float(row[-1]) == pytest.approx(from_scratch(model, words), abs=1e-4)
            assert float(row.exp().sum()) == pytest.approx(1.0, abs=1e-5)  # <unk> and the end are outcomes


def test_equal_contexts_cost_once(model):
    calls = []

    class Counting:
        def __getattr__(self, name):
            return getattr(model, name)

        def __contains__(self, word):
            return word in model

        def BaseScore(self, *args):  # noqa: N802
            calls.append(args)
            return model.BaseScore(*args)

    total = scorer(Counting())
    state, rows = total.start(2), torch.tensor([0, 1])
    total.log_probs(state, rows)
    assert len(calls) == len(WORDS) + 1
    labels = torch.tensor([[1, 2, 3, 1], [4, 2, 3, 1]])
    state, _ = total.extend(state, rows, labels, torch.tensor([4, 4]))
    calls.clear()
    total.log_probs(state, rows)
    total.log_probs(total.extend(state, rows, labels[:, :1], torch.tensor([0, 0]))[0], rows)
    assert len(calls) == len(WORDS) + 1  # a trigram sees two labels


def test_labels_that_it_does_not_know_are_unknown(model):
    total = NGramScorer(model, (*WORDS, "zebra"))
    found = total.log_probs(total.start(1), torch.tensor([0]))[0]
    assert float(found[7]) == float(found[0])
    nothing = total.log_probs(total.start(1), torch.zeros(0, dtype=torch.long))
    assert nothing.shape == (0, 9)


def test_an_n_gram_of_other_words(model):
    with pytest.raises(ModelError, match=r"x\.arpa: .* knows 1 of the recogniser's 4 labels.*kikitori ngram"):
        NGramScorer(model, ("a", "▁a", "▁the", "<unk>"), where="x.arpa")
    with pytest.raises(ModelError, match=r"knows 3 of the recogniser's 4 labels"):
        NGramScorer(model, ("a", "b", "c", "Ġ"))  # characters that are words too


def test_alone_and_beside_an_llm_it_is_the_rescoring_of_every_label_sequence(model):
    log_probs, words = random_log_probs(4, 3, 0), WORDS[1:4]
    llm = LMScorer(tiny_llm("llama", 30).double(), 3, bos_id=1, eos_id=2)
    for more in ([], [(llm, 0.3), (length_scorer(3), 0.5)]):
        total = WeightedSum([(NGramScorer(model, words), 0.7), *more])
        (found,) = shallow_fusion(log_probs[None], torch.tensor([4]), total, flat(ShallowFusionSearch, **ALL))
        assert {each.labels for each in found} == set(every_path(log_probs, "sum"))
        for each in found:
            expected = from_scratch(model, [words[label] for label in each.labels])
            assert each.shares[0] == pytest.approx(expected, abs=1e-4)
            others = float(total.total(torch.tensor(each.shares, dtype=torch.float64)))
            assert each.score == pytest.approx(each.ctc + others, abs=1e-9)
    assert found[0].scores[1] < 0


def test_the_names_of_labels():
    units = tiny_units()
    words = label_words(units)
    assert [words[label] for label in (0, 1, 2)] == ["<unk>", "<s>", "</s>"]
    assert [words[label] for label in units.encode("it's a")] == ["▁", "i", "t", "'", "s", "▁", "a"]
    bpe = tiny_bpe("characters", extra=("a b", "<|end|>"))
    bpe.bos_id, bpe.eos_id = None, bpe.special_id("<|end|>")
    assert [label_words(bpe)[label] for label in (bpe.special_id("a b"), bpe.eos_id)] == ["<unk>", "</s>"]


def nbest(units, *texts):
    return tuple(Hypothesis(tuple(units.encode(text)), text, 0.0) for text in texts)


def test_a_judge_of_labels_or_words(tmp_path):
    pytest.importorskip("kenlm")
    units = tiny_units()
    words, both = label_words(units), nbest(units, "the fox", "The dog!")
    alphabet = [word for word in words if word not in ("<s>", "</s>")]
    write_arpa(tmp_path / "labels.arpa", estimate([[3, 4, 5]], len(alphabet), 2), alphabet)
    write_arpa(tmp_path / "words.arpa", estimate([[0, 1], [0, 2]], 4, 2), ["the", "fox", "dog", "<unk>"])
    by_labels, by_words = load_ngram(tmp_path / "labels.arpa"), load_ngram(tmp_path / "words.arpa")
    found = NGramJudge(by_labels).scores([both, ()], units)
    expected = [from_scratch(by_labels, [words[label] for label in each.labels]) for each in both]
    assert found.scores == [pytest.approx(expected), []]
    assert found.labels == found.nodes == sum(len(each.labels) for each in both)
    expected = [from_scratch(by_words, text) for text in (["the", "fox"], ["The", "dog!"], ["the", "dog"])]
    for units_or_none in (units, None):
        assert NGramJudge(by_words).scores([both], units_or_none).scores == [pytest.approx(expected[:2])]
    plain = NGramJudge(by_words, "en_plain").scores([both], units).scores
    assert plain == [pytest.approx([expected[0], expected[2]])]


@pytest.mark.parametrize("content", [None, b"", b"nothing\n", b"\\data\\\nngram 1=2\n\n\\1-grams:\n", b"\0" * 999])
def test_files_that_are_missing_or_damaged(content, tmp_path):
    pytest.importorskip("kenlm")
    file = tmp_path / "lm.arpa"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ModelError, match=r"lm\.arpa: (no such file|KenLM cannot read it)") as found:
        load_ngram(file)
    assert "\n" not in str(found.value)


def test_what_kenlm_says_of_a_file(tmp_path):
    pytest.importorskip("kenlm")
    write_arpa(tmp_path / "lm.arpa", estimate([[0]], 1, 1), ["a"])
    with pytest.raises(ModelError, match=r"KenLM cannot read it \(This ngram implementation assumes at least a bigram"):
        load_ngram(tmp_path / "lm.arpa")


def test_a_compressed_file(file, model, tmp_path):
    (tmp_path / "lm.arpa.gz").write_bytes(gzip.compress(file.read_bytes()))
    assert load_ngram(tmp_path / "lm.arpa.gz").score("a b") == model.score("a b")


def test_a_file_that_is_cut_short(file, tmp_path):
    pytest.importorskip("kenlm")
    whole = file.read_bytes()
    for size in np.linspace(10, len(whole) - 20, 15).astype(int):
        (tmp_path / "cut.arpa").write_bytes(whole[:size])
        with pytest.raises(ModelError, match="KenLM cannot read it"):
            load_ngram(tmp_path / "cut.arpa")


def test_without_kenlm(monkeypatch, file):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ModelError, match=r"lm\.arpa: n-grams need KenLM; pip install 'kikitori\[ngram\]'"):
        load_ngram(file)


def test_what_is_a_file_of_an_n_gram():
    assert all(is_ngram(name) for name in ("lm.arpa", "a/lm.bin", "lm.arpa.gz", "lm/words.ngram"))
    assert not any(is_ngram(name) for name in ("runs/lm", "owner/name", "lm.safetensors"))


def test_files_of_words_need_no_kenlm(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    file = tmp_path / "words.ngram"
    write_packed(file, estimate([[0, 1], [0, 2]], 4, 2), ["the", "fox", "dog", "<unk>", "</s>", "<s>"])
    both = nbest(tiny_units(), "the fox", "The dog!")
    found = with_scores([both, ()], lm_scorer("ngram", LMOptions(str(file), "en_plain"), None))
    words = load_word_ngram(file)
    shares = [score_text(words, text.split()) for text in ("the fox", "the dog")]
    assert [hypothesis.shares["ngram"] for hypothesis in found[0]] == shares
    assert shares[0] == pytest.approx(shares[1])
    with pytest.raises(ModelError, match=r"words\.ngram: an n-gram over words, and here labels are asked for"):
        load_ngram(file)
