"""The n-gram scorer against the tables that wrote its file, looked up n-gram by n-gram."""

from math import log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ModelError
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.ngram import NGramScorer, NGramSequenceScorer, is_ngram, label_words
from kikitori.scorers.options import LMOptions
from kikitori.scorers.prior import length_scorer
from kikitori.search.options import ShallowFusionSearch
from kikitori.search.rescore import lm_scorer, with_scores
from kikitori.text.ngram.arpa import write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.model import load_ngram, score_text
from kikitori.text.ngram.packed import write_packed
from kikitori.types import Hypothesis
from tests.search.ctc.test_beam import every_path, random_log_probs
from tests.search.flat import flat, shallow_fusion
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
    return load_ngram(file)


def scorer(model, words=WORDS):
    return NGramScorer(model, words)


def from_scratch(words, sentences=SENTENCES, names=WORDS, order=3):
    """The natural log-probability of a sentence by the tables of the estimate."""
    tables, end, start = read(estimate(sentences, len(names), order)), len(names), len(names) + 1
    row = [start, *(names.index(word if word in names else "<unk>") for word in words), end]
    return log(10) * sum(backed_off(tables, tuple(row[max(0, i - order + 1) : i]), row[i]) for i in range(1, len(row)))


def test_every_label_behind_every_history(model):
    tables, found = read(estimate(SENTENCES, 7, 3)), scorer(model)
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
            assert before + float(row[-1]) == pytest.approx(from_scratch(words), abs=1e-4)
            assert float(row.exp().sum()) == pytest.approx(1.0, abs=1e-5)  # <unk> and the end are outcomes


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
            expected = from_scratch([words[label] for label in each.labels])
            assert each.scores[total.names[0]] == pytest.approx(expected, abs=1e-4)
            others = float(total.total(torch.tensor([each.scores[name] for name in total.names], dtype=torch.float64)))
            assert each.score == pytest.approx(each.scores["ctc"] + others, abs=1e-9)
    assert found[0].scores["lm"] < 0


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


def test_whole_hypotheses_by_labels_or_words(tmp_path):
    units = tiny_units()
    words, both = label_words(units), nbest(units, "the fox", "The dog!")
    alphabet, vocabulary = [word for word in words if word not in ("<s>", "</s>")], ["the", "fox", "dog", "<unk>"]
    pairs = [[0, 1], [0, 2]]
    write_arpa(tmp_path / "labels.arpa", estimate([[3, 4, 5]], len(alphabet), 2), alphabet)
    write_arpa(tmp_path / "words.arpa", estimate(pairs, 4, 2), vocabulary)
    by_labels, by_words = load_ngram(tmp_path / "labels.arpa"), load_ngram(tmp_path / "words.arpa")
    found = NGramSequenceScorer("lm", by_labels, units).scores([both, ()])
    expected = [from_scratch([words[label] for label in each.labels], [[3, 4, 5]], alphabet, 2) for each in both]
    assert found == [pytest.approx(expected, abs=1e-4), []]
    texts = (["the", "fox"], ["The", "dog!"], ["the", "dog"])
    expected = [from_scratch(text, pairs, vocabulary, 2) for text in texts]
    for units_or_none in (units, None):
        found = NGramSequenceScorer("lm", by_words, units_or_none).scores([both])
        assert found == [pytest.approx(expected[:2], abs=1e-4)]
    plain = NGramSequenceScorer("lm", by_words, units, "en_plain").scores([both])
    assert plain == [pytest.approx([expected[0], expected[2]], abs=1e-4)]


def test_characters_that_are_words_of_a_word_n_gram(tmp_path):
    units = tiny_units()
    characters = [word for word in label_words(units) if word not in ("<s>", "</s>")]
    more = [f"word{number}" for number in range(len(characters) + 5)]
    write_arpa(tmp_path / "lm.arpa", estimate([[3, 4, 5]], len(characters) + len(more), 2), [*characters, *more])
    both = nbest(units, "the fox", "a dog")
    ngram = load_ngram(tmp_path / "lm.arpa")
    by_labels, by_texts = (NGramSequenceScorer("lm", ngram, each) for each in (units, None))
    assert by_labels.scores([both]) == by_texts.scores([both])


def test_texts_in_another_form_than_its_own(tmp_path):
    write_arpa(tmp_path / "up.arpa", estimate([[0, 1]], 3, 2), ["THE", "FOX", "<unk>"])
    scorer = lm_scorer("lm", LMOptions(str(tmp_path / "up.arpa")), None)
    few, many = nbest(tiny_units(), "the fox"), nbest(tiny_units(), "a b c d e f", "the fox and the dog")
    assert scorer.scores([few])[0][0] < 0
    with pytest.raises(ModelError, match=r"up\.arpa: the n-gram has none of the 10 words .* 'a'; choose the text_form"):
        scorer.scores([many])


def test_what_is_a_file_of_an_n_gram():
    assert all(is_ngram(name) for name in ("lm.arpa", "a/lm.bin", "lm.arpa.gz", "lm/words.ngram"))
    assert not any(is_ngram(name) for name in ("runs/lm", "owner/name", "lm.safetensors"))


def test_a_packed_file_rescores(tmp_path):
    file = tmp_path / "words.ngram"
    write_packed(file, estimate([[0, 1], [0, 2]], 4, 2), ["the", "fox", "dog", "<unk>", "</s>", "<s>"])
    both = nbest(tiny_units(), "the fox", "The dog!")
    found = with_scores([both, ()], lm_scorer("ngram", LMOptions(str(file), "en_plain"), None))
    words = load_ngram(file)
    shares = [score_text(words, text.split()) for text in ("the fox", "the dog")]
    assert [hypothesis.scores["ngram"] for hypothesis in found[0]] == shares
    assert shares[0] == pytest.approx(shares[1])
