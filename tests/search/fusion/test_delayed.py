"""Delayed fusion against the rescoring of every label sequence by its text."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.scorers.base import WeightedSum
from kikitori.scorers.language_model import LMSequenceScorer, language_model
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.options import LMOptions
from kikitori.scorers.prior import PriorScorer, length_scorer
from kikitori.search.ctc.beam import ctc_beam
from kikitori.search.fusion import delayed as module
from kikitori.search.fusion.delayed import delayed_fusion_of_logits, fuse_words
from kikitori.search.fusion.retokenizing import RetokenizingLM
from kikitori.search.options import CTCBeamSearch, DelayedFusionSearch, ShallowFusionSearch
from kikitori.search.pruning import FramePruning
from kikitori.search.rescore import rescored, with_scores
from kikitori.text.unit_training import character_units
from kikitori.types import Hypothesis
from tests.crossed import crossed
from tests.search.ctc.test_beam import every_path, label_score, random_log_probs
from tests.search.flat import delayed_fusion, flat, shallow_fusion
from tests.tiny import TEXTS, tiny_bpe, tiny_gpt2, tiny_llm, tiny_units

ALL = {"beam": 100_000, "nbest": 100_000, "score_beam": None, "frame_labels": None, "min_log_prob": None}
TRIGGERS = [1, 2, 5, "word_end", "shortest", "never"]
OWN = tiny_units()  # characters, among them one that is only the word mark
MARK = OWN.special_id("▁")


def reader_of(kind, units=OWN, dtype=torch.float64, text_form="as_is"):
    """A recogniser's units and an LM over others: `bytes`, `characters` whose tokens cross words, `equal`."""
    others = {"equal": lambda: units, "bytes": tiny_bpe, "characters": lambda: tiny_bpe("characters")}[kind]()
    llm = tiny_llm("llama", others.size).to(dtype)
    return RetokenizingLM(language_model(llm, others, LMOptions("here", text_form=text_form)), units)


READERS = {kind: reader_of(kind) for kind in ("bytes", "characters", "equal")}


def prior(num_labels):
    return torch.from_numpy(np.random.default_rng(0).normal(size=num_labels)).log_softmax(0)


def few(frames, seed):
    """Units of two letters and the word mark, and random posteriors of these."""
    units = character_units(["ab"], "as_is")
    log_probs = random_log_probs(frames, units.size, seed)
    log_probs[:, : units.special_id("▁")] = -inf
    return units, log_probs


def posteriors(frames, seed, spread=2.0, units=OWN):
    """Random ones in which words end often enough."""
    logits = spread * torch.randn(frames, units.size + 1, generator=torch.Generator().manual_seed(seed)).double()
    logits[:, units.special_id("▁")] += spread
    logits[:, -1] += spread
    return logits.log_softmax(-1)


def search(scales=(0.5, 0.3, 0.2), **changes):
    llm, prior_scale, length = scales
    scales = {"llm_scale": llm, "prior_scale": prior_scale, "length_scale": length}
    return flat(DelayedFusionSearch, **changes, **scales)


def one(log_probs, reader, options):
    lengths = torch.tensor([len(log_probs)])
    (found,) = delayed_fusion(log_probs[None], lengths, reader, prior(reader.units.size), options)
    return [replace(each, text=reader.units.decode(each.labels)) for each in found]


def from_scratch(labels, reader):
    """The shares beside the CTC head's, of whole texts alone."""
    ((llm,),) = reader.lm.log_probs([[reader.tokens(labels)]]).scores
    own = float(prior(reader.units.size)[list(labels)].sum())
    return {"lm": llm, "prior": own, "length": float(len(labels))}


def weigh(shares, options):
    return sum(options.scale(name) * shares[name] for name in ("lm", "prior", "length"))


def seen(nbest):
    return [each.labels for each in nbest]


some_scales = st.tuples(*[st.sampled_from([0.0, 0.4, 1.5])] * 3)
triggers = st.sampled_from(TRIGGERS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3), st.integers(0, 9999), st.sampled_from(["sum", "max"]), some_scales, triggers)
def test_with_a_full_beam_it_is_the_rescoring_of_every_label_sequence(frames, seed, recombine, scales, trigger):
    units, log_probs = few(frames, seed)
    reader = RetokenizingLM(READERS["characters"].lm, units)
    options = search(scales, trigger=trigger, recombine=recombine, **ALL)
    found = one(log_probs, reader, options)
    paths = every_path(log_probs, recombine)
    ((*llm,),) = reader.lm.log_probs([[reader.tokens(labels) for labels in paths]]).scores
    expected = {}
    for (labels, ctc), score in zip(paths.items(), llm, strict=True):
        shares = {"lm": score, "prior": float(prior(units.size)[list(labels)].sum()), "length": len(labels)}
        expected[labels] = ctc + weigh(shares, options)
    assert {each.labels: each.score for each in found} == pytest.approx(expected, abs=1e-9)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["bytes", "characters", "equal"]),
    st.integers(0, 9999),
    st.sampled_from(["sum", "max"]),
    st.sampled_from([1, 3, 8]),
    some_scales,
    triggers,
)
def test_shares_are_those_from_scratch(kind, seed, recombine, beam, scales, trigger):
    log_probs, reader = posteriors(25, seed), READERS[kind]
    options = search(scales, trigger=trigger, beam=beam, recombine=recombine)
    for each in one(log_probs, reader, options):
        expected = from_scratch(each.labels, reader)
        assert each.text == OWN.decode(each.labels)
        assert each.scores == pytest.approx({"ctc": each.scores["ctc"], **expected}, abs=1e-8)
        assert each.score == pytest.approx(each.scores["ctc"] + weigh(expected, options), abs=1e-8)
        assert each.scores["ctc"] <= label_score(log_probs, each.labels, recombine) + 1e-9
        assert each.complete


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_bonuses_in_the_beam_are_those_of_the_complete_words(kind, monkeypatch):
    """Whenever words were scored, each hypothesis has what its words are worth, and what may return what they were."""
    reader, options, checked = READERS[kind], search(trigger=3, beam=4), 0

    class Watched(module._Search):
        def _spread(self):
            nonlocal checked
            super()._spread()
            nodes = np.array(self._reachable, np.int32)
            beam, rows = set(self._beam.nodes.tolist()), zip(nodes.tolist(), self._beam.labels(nodes), strict=True)
            written = dict(rows)
            for node, bonus in zip(nodes.tolist(), self._beam.bonus(nodes).tolist(), strict=True):
                labels = written[node]
                words = tuple(labels[: max((place for place, x in enumerate(labels) if x == MARK), default=0)])
                parent = self._parents[node]
                if node in beam:
                    assert bonus == pytest.approx(worth(words))
                else:
                    assert self._scored[node] >= self._scored[parent]
                    checked += self._scored[parent] > 0

    def worth(words):
        ((score,),) = module.IncrementalLMScorer(reader.lm, 1).scores([[reader.tokens(words)]])
        return weigh({**from_scratch(words, reader), "lm": score}, options)

    monkeypatch.setattr(module, "_Search", Watched)
    for seed in range(4):
        one(posteriors(60, seed, 1.2), reader, options)
    assert checked > 3


@pytest.mark.parametrize("kind", ["bytes", "characters", "equal"])
@pytest.mark.parametrize("recombine", ["sum", "max"])
def test_never_is_the_rescoring_of_the_same_beam(kind, recombine):
    reader, options = READERS[kind], search(trigger="never", beam=12, nbest=12, recombine=recombine)
    scales = {"ctc": 1.0, "lm": 0.5, "prior": -0.3, "length": 0.2}
    log_probs, changed = torch.stack([posteriors(30, seed) for seed in range(4)]), 0
    lengths = torch.tensor([30, 30, 12, 0])
    beams = ctc_beam(log_probs, lengths, CTCBeamSearch(beam=12, nbest=12, pruning=FramePruning(recombine=recombine)))
    own = prior(OWN.size)

    def alone(hypothesis):
        return float(own[list(hypothesis.labels)].sum())

    nbests = [
        [
            Hypothesis(
                h.labels, OWN.decode(h.labels), h.scores["ctc"], scores={"ctc": h.scores["ctc"], "prior": alone(h)}
            )
            for h in row
        ]
        for row in beams
    ]
    judged = with_scores(nbests, LMSequenceScorer("lm", reader.lm, OWN))
    for found, first in zip(delayed_fusion(log_probs, lengths, reader, own, options), judged, strict=True):
        expected = rescored(first, scales)
        assert seen(found) == seen(expected)
        assert [each.llm_passes for each in found] == [1] * len(found)
        for each, same in zip(found, expected, strict=True):
            assert each.score == pytest.approx(same.score, abs=1e-9)
            assert each.scores == pytest.approx(dict(same.scores), abs=1e-9)
        changed += seen(found) != seen(first)
    assert changed > 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(0, 9999), some_scales, triggers)
def test_with_equal_units_and_a_full_beam_it_is_shallow_fusion(frames, seed, scales, trigger):
    units, log_probs = few(frames, seed)
    lm = language_model(tiny_llm("llama", units.size).double(), units, LMOptions("here"))
    llm, prior_scale, length = scales
    scorer = LMScorer(lm.llm, units.size, bos_id=units.bos_id, eos_id=units.eos_id)
    own, reward = PriorScorer(prior(units.size)), length_scorer(units.size)
    scorers = WeightedSum([(scorer, llm), (reward, length), (own, -prior_scale)])
    (expected,) = shallow_fusion(log_probs[None], torch.tensor([frames]), scorers, flat(ShallowFusionSearch, **ALL))
    found = one(log_probs, RetokenizingLM(lm, units), search(scales, trigger=trigger, **ALL))
    assert {each.labels: each.score for each in found} == pytest.approx(
        {each.labels: each.score for each in expected}, abs=1e-9
    )
    shares = {each.labels: each.scores for each in expected}
    for each in found:
        assert each.scores == pytest.approx(dict(shares[each.labels]), abs=1e-9)


@pytest.mark.parametrize("kind", ["bytes", "equal"])
@pytest.mark.parametrize("trigger", [3, "word_end", "never"])
def test_with_all_scales_0_it_is_the_acoustic_search(kind, trigger):
    log_probs = posteriors(40, 1)
    found = one(log_probs, READERS[kind], search((0.0, 0.0, 0.0), trigger=trigger))
    (expected,) = ctc_beam(log_probs[None], torch.tensor([40]), CTCBeamSearch())
    assert [(each.labels, each.score) for each in found] == [(each.labels, each.scores["ctc"]) for each in expected]
    assert all(each.scores["lm"] < 0.0 for each in found)


@pytest.mark.parametrize(("kind", "trigger"), crossed(("characters", "equal"), (1, 7, "shortest")))
def test_the_same_in_any_batch(kind, trigger):
    generator = torch.Generator().manual_seed(0)
    logits = torch.stack([posteriors(40, seed) for seed in range(8)]).float()
    lengths = torch.randint(1, 41, (8,), generator=generator)
    lengths[3] = 0
    reader, own, options = reader_of(kind, dtype=torch.float32), prior(OWN.size).float(), search(trigger=trigger)
    alone = [delayed_fusion_of_logits(logits[[row]], lengths[[row]], reader, own, options)[0] for row in range(8)]
    assert len({row[0].labels for row in alone}) > 5
    for size in (3, 8):
        for rows in torch.randperm(8, generator=generator).split(size):
            found = delayed_fusion_of_logits(logits[rows], lengths[rows], reader, own, options)
            for row, nbest in zip(rows.tolist(), found, strict=True):
                assert seen(nbest) == seen(alone[row])
                for each, same in zip(nbest, alone[row], strict=True):
                    assert each.llm_passes == same.llm_passes
                    assert each.score == pytest.approx(same.score, abs=1e-5 * (len(each.labels) + 1))
                    assert each.scores == pytest.approx(dict(same.scores), abs=1e-5 * (len(each.labels) + 1))


@pytest.mark.parametrize("changes", [{"vocabulary": 8}, {"collapse": 0.3}, {"vocabulary": 6, "collapse": 0.3}])
def test_fewer_labels_and_frames_keep_the_shares(changes):
    reader, log_probs = READERS["bytes"], posteriors(40, 6)
    found = one(log_probs, reader, search(trigger="word_end", **changes))
    assert max(each.labels.count(MARK) for each in found) > 1
    for each in found:
        expected = {"ctc": each.scores["ctc"], **from_scratch(each.labels, reader)}
        assert each.scores == pytest.approx(expected, abs=1e-9)


def spelt(text, units=OWN):
    """Posteriors of one label sequence, one label per frame, a blank behind each."""
    labels = [units.special_id(character) for character in "▁" + text.replace(" ", "▁")]
    log_probs = torch.full((2 * len(labels), units.size + 1), -inf, dtype=torch.float64)
    log_probs[1::2, -1] = 0.0
    log_probs[torch.arange(0, 2 * len(labels), 2), torch.tensor(labels)] = 0.0
    return log_probs


@pytest.fixture
def asked(monkeypatch):
    """The texts that are scored before the end, call by call."""
    calls = []

    class Watched(module.IncrementalLMScorer):
        def scores(self, sequences):
            calls.append([self._lm.units.decode(each) for row in sequences for each in row])
            return super().scores(sequences)

    monkeypatch.setattr(module, "IncrementalLMScorer", Watched)
    return calls


@pytest.mark.parametrize(
    ("kind", "trigger", "expected"),
    [
        ("bytes", "word_end", [["a"], ["a box"]]),
        ("bytes", 1, [["a"], ["a box"]]),
        ("bytes", "shortest", [["a"], ["a box"]]),
        ("bytes", 6, [["a"]]),
        ("bytes", 14, [["a box"]]),
        ("bytes", "never", []),
        ("equal", "word_end", [["a"], ["a box"]]),
        ("equal", 5, [["a"], ["a bo"], ["a box d"]]),
    ],
)
def test_when_words_are_scored(kind, trigger, expected, asked):
    reader = READERS[kind]
    (found,) = one(spelt("a box do"), reader, search(trigger=trigger))
    assert asked == expected
    assert (found.text, found.llm_passes) == ("a box do", len(expected) + 1)
    assert found.scores == pytest.approx({"ctc": 0.0, **from_scratch(found.labels, reader)})


def test_the_shortest_hypothesis_waits_for_its_words(asked):
    log_probs = spelt("a box do")
    log_probs[8] = -inf  # `o`, or nothing
    log_probs[8, [OWN.special_id("o"), -1]] = np.log(0.5)
    log_probs[12] = -inf  # the word mark, or nothing
    log_probs[12, [MARK, -1]] = np.log(0.5)
    one(log_probs, READERS["bytes"], search(trigger="word_end"))
    assert asked == [["a"], ["a bx", "a box"]] or asked == [["a"], ["a box", "a bx"]]
    asked.clear()
    one(log_probs, READERS["bytes"], search(trigger="shortest"))
    # The shortest, `a bxdo`, has no second complete word until the end.
    assert asked == [["a"]]


def test_a_unit_that_is_only_the_word_mark_ends_a_word():
    log_probs = spelt("a  fox")  # two marks: an empty word between
    for trigger in TRIGGERS:
        (found,) = one(log_probs, READERS["bytes"], search(trigger=trigger))
        assert found.scores == pytest.approx({"ctc": 0.0, **from_scratch(found.labels, READERS["bytes"])})
    (found,) = one(spelt("a "), READERS["bytes"], search(trigger=1))
    assert (found.text, found.labels[-1]) == ("a", MARK)
    assert found.scores["lm"] == pytest.approx(from_scratch(OWN.encode("a"), READERS["bytes"])["lm"])
    (found,) = one(spelt(""), READERS["bytes"], search(trigger=1))
    assert (found.text, found.scores["lm"]) == ("", pytest.approx(from_scratch((), READERS["bytes"])["lm"]))


def test_equal_texts_of_different_labels_have_the_same_share():
    units = tiny_units("sentencepiece")
    reader = reader_of("bytes", units)
    whole = units.encode("the the")
    pieces = [units.special_id(piece) for piece in "▁thethe"[:4]]
    log_probs = torch.full((len(pieces) + 1, units.size + 1), -30.0, dtype=torch.float64)
    for frame, piece in enumerate(pieces):
        log_probs[frame, [piece, -1]] = np.log(0.4)
    log_probs[0, whole[0]] = np.log(0.3)
    log_probs[-1, whole[0]] = 0.0
    found = one(log_probs, reader, search(trigger=1, score_beam=None))
    same = [each for each in found if each.text == found[0].text]
    assert len(seen(found)) == len({*seen(found)})
    assert len({each.scores["lm"] for each in same}) == 1


@pytest.mark.parametrize("text", TEXTS)
def test_a_new_word_may_change_how_the_text_before_is_tokenised(text, asked):
    """Tokens of these units cross words, such as `▁the▁`, as those of any tokenizer that does not split at spaces."""
    reader, words = READERS["characters"], text.split()
    beginnings = [" ".join(words[:count]) for count in range(1, len(words))]
    texts = [reader.lm.units.encode(each) for each in (*beginnings, text)]
    assert any(after[: len(before)] != before for before, after in pairwise(texts))
    (found,) = one(spelt(text), reader, search(trigger="word_end"))
    assert asked == [[each] for each in beginnings]
    assert found.scores == pytest.approx({"ctc": 0.0, **from_scratch(found.labels, reader)}, abs=1e-9)


def test_the_lm_reads_its_own_text_form():
    units = character_units(["AB C"], "as_is")
    plain, lower = reader_of("bytes", units), reader_of("bytes", units, text_form="lower")
    (as_is,), (lowered,) = (one(spelt("AB C", units), reader, search(trigger=1)) for reader in (plain, lower))
    assert as_is.text == lowered.text == "AB C"
    assert lowered.scores["lm"] == pytest.approx(from_scratch(plain.units.encode("AB C"), lower)["lm"])
    assert lowered.scores["lm"] == pytest.approx(plain.lm.log_probs([[plain.lm.units.encode("ab c")]]).scores[0][0])
    assert as_is.scores["lm"] != pytest.approx(lowered.scores["lm"])


def impossible(word):
    """The scores of a language model for which a text with a word is impossible."""

    class Refusing(module.IncrementalLMScorer):
        def _read(self, sequences):
            found = super()._read(sequences)
            texts = [[self._lm.units.decode(each) for each in row] for row in sequences]
            rows = zip(found, texts, strict=True)
            return [[None if word in t.split() else n for n, t in zip(*row, strict=True)] for row in rows]

    return Refusing


def test_what_the_lm_rules_out_leaves_the_beam(monkeypatch):
    log_probs = spelt("a cat hat")
    log_probs[6] = -inf
    log_probs[6, [OWN.special_id("c"), OWN.special_id("b")]] = torch.tensor([0.9, 0.1], dtype=torch.float64).log()
    monkeypatch.setattr(module, "IncrementalLMScorer", impossible("cat"))
    found = one(log_probs, READERS["bytes"], search(trigger="word_end"))
    assert [each.text for each in found] == ["a bat hat"]
    found = one(log_probs, READERS["bytes"], search(trigger="never"))
    assert [(each.text, each.score > -inf) for each in found] == [("a bat hat", True), ("a cat hat", False)]
    indifferent = one(log_probs, READERS["bytes"], search((0.0, 0.0, 0.0), trigger="word_end"))
    assert [each.text for each in indifferent] == ["a cat hat", "a bat hat"]
    monkeypatch.setattr(module, "IncrementalLMScorer", impossible("a"))
    (only,) = one(log_probs, READERS["bytes"], search(trigger="word_end"))
    assert (only.labels, only.score) == ((), -inf)


@pytest.mark.parametrize("trigger", [1, "never"])
def test_an_lm_out_of_positions_leaves_the_beam_as_it_is(trigger):
    units = tiny_bpe()
    lm = language_model(tiny_gpt2(units.size, max_positions=5), units, LMOptions("here"))
    reader = RetokenizingLM(lm, OWN)
    log_probs = spelt("we can hear it we can hear it")
    log_probs[2] = -inf
    log_probs[2, [OWN.special_id("w"), OWN.special_id("h")]] = torch.tensor([0.6, 0.4], dtype=torch.float64).log()
    found = one(log_probs, reader, search(trigger=trigger))
    assert len(found) == 2
    for each in found:
        assert (each.score, each.scores["lm"], each.complete) == (-inf, -inf, False)
        assert len(each.text) == 29
    short = one(spelt("we"), reader, search(trigger=trigger))
    assert short[0].complete
    assert short[0].score > -inf


def test_nothing_and_blanks_have_finite_scores():
    blanks = torch.full((2, 20, OWN.size + 1), -inf)
    blanks[..., -1] = 0.0
    reader, own = READERS["bytes"], prior(OWN.size)
    for (found,) in delayed_fusion(blanks, torch.tensor([20, 0]), reader, own, search(trigger=1)):
        assert (found.labels, found.text, found.llm_passes) == ((), "", 1)
        assert found.score == pytest.approx(0.5 * from_scratch((), reader)["lm"])
    assert fuse_words([], reader, own, search()) == []


@pytest.mark.parametrize("value", [-inf, torch.nan])
def test_a_frame_without_outputs_leaves_no_label_sequence(value):
    log_probs = posteriors(6, 0)
    log_probs[2] = value
    (only,) = one(log_probs, READERS["bytes"], search(trigger=1))
    assert (only.labels, only.score) == ((), -inf)


def test_without_a_prior():
    reader, log_probs = READERS["bytes"], posteriors(20, 2)
    options = search((0.5, 0.0, 0.0), trigger=5)
    (found,) = delayed_fusion(log_probs[None], torch.tensor([20]), reader, None, options)
    same = one(log_probs, reader, options)
    assert [(each.labels, each.score) for each in found] == [(each.labels, each.score) for each in same]
    assert {*found[0].scores} == {"ctc", "lm", "length"}
