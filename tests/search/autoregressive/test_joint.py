"""Beam and joint search of whole speech LLMs, on all interfaces."""

from functools import cache
from math import inf, nan

import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.decoder.llm import num_embeddings
from kikitori.model.heads import ctc_loss
from kikitori.scorers.decoder import DecoderScorer
from kikitori.scorers.internal_lm import internal_scorer
from kikitori.scorers.options import ScorerOptions, with_scales
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.joint import decoder_beam, frame_scorer, joint
from kikitori.search.ctc.beam import ctc_beam_of_logits
from kikitori.search.fusion.shallow import shallow_fusion_of_logits
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch, CTCBeamSearch, JointSearch, JointTimeSyncSearch
from kikitori.search.pruning import FramePruning, JointPruning
from tests.crossed import crossed
from tests.search.ctc.test_beam import every_path
from tests.search.flat import flat
from tests.tiny import INTERFACES, tiny_speech_llm, tiny_waveforms

ALL, LIMITS = (0, 1, 2), (12, 9, 12)
WHOLE = {"beam": 6, "nbest": 6}


@cache
def encoded_by(interface, rows):
    """A model, encoder output of three utterances in this order, the decoder behind them, and CTC logits."""
    model = tiny_speech_llm(interface=interface)
    waveforms = [torch.from_numpy(each) for each in tiny_waveforms(3)]
    lengths = torch.tensor([len(waveforms[row]) for row in rows])
    padded = torch.nn.utils.rnn.pad_sequence([waveforms[row] for row in rows], batch_first=True)
    with torch.inference_mode():
        encoded = model.acoustic.encode(padded, lengths)
        return model, encoded, model.decoder(encoded), *model.acoustic.ctc_logits(encoded)


def search(interface, options, rows=ALL, **changes):
    _, _, decoder, logits, lengths = encoded_by(interface, rows)
    options, pre_beam = options if isinstance(options, tuple) else (options, {})
    limits = Limits([LIMITS[row] for row in rows], **changes)
    if isinstance(options, BeamSearch):
        return decoder_beam(decoder, options, limits)
    if isinstance(options, JointSearch):
        return joint(decoder, logits, lengths, options, limits, **pre_beam)
    scorer = frame_scorer(decoder, logits.shape[2] - 1, options)
    return shallow_fusion_of_logits(logits, lengths, scorer, options)


def llm_share(interface, row, labels):
    """By teacher forcing."""
    model, encoded, *_ = encoded_by(interface, ALL)
    targets = [list(labels) if row == place else [3] for place in range(3)]
    with torch.inference_mode():
        logits, following = model.label_logits(encoded, targets)
    start = sum(len(target) + 1 for target in targets[:row])
    part = slice(start, start + len(labels) + 1)
    return float(logits[part].log_softmax(-1).gather(1, following[part, None]).sum())


def ctc_share(interface, row, labels):
    *_, logits, lengths = encoded_by(interface, ALL)
    loss = ctc_loss(logits[row : row + 1].double().log_softmax(-1), lengths[row : row + 1], [list(labels)])
    return -float(loss.total)


OPTIONS = (
    BeamSearch(**WHOLE),
    (flat(JointSearch, **WHOLE, ctc_scale=0.4), {"pre_beam": 8}),
    (flat(JointSearch, **WHOLE, ctc_scale=0.4, window=None), {"pre_beam": None}),
    JointTimeSyncSearch(**WHOLE, scorers={"speech_llm": ScorerOptions(scale=0.7)}),
)


@pytest.mark.parametrize(("interface", "options"), crossed(INTERFACES, OPTIONS))
def test_shares_are_those_of_teacher_forcing(interface, options):
    found, options = search(interface, options), options[0] if isinstance(options, tuple) else options
    for row, hypotheses in enumerate(found):
        for each in hypotheses[:3]:
            scores = each.scores
            assert scores["speech_llm"] == pytest.approx(llm_share(interface, row, each.labels), abs=1e-4)
            assert scores["length"] == len(each.labels)
            if isinstance(options, JointSearch):
                assert scores["ctc"] == pytest.approx(ctc_share(interface, row, each.labels), abs=1e-4)
                assert each.score == pytest.approx(0.6 * scores["speech_llm"] + 0.4 * scores["ctc"], abs=1e-6)
            elif isinstance(options, BeamSearch):
                assert each.score == pytest.approx(scores["speech_llm"] / (len(each.labels) + 1), abs=1e-6)


@pytest.mark.parametrize(("interface", "options"), crossed(INTERFACES, OPTIONS))
def test_utterances_do_not_depend_on_their_batch(interface, options):
    together = search(interface, options)
    for rows in ((2, 0, 1), (1,), (0, 2)):
        for row, alone in zip(rows, search(interface, options, rows), strict=True):
            assert alone[0].labels == together[row][0].labels
            assert [each.score for each in alone] == pytest.approx([each.score for each in together[row]], abs=1e-4)


@pytest.mark.parametrize("interface", INTERFACES)
def test_a_beam_of_one_is_greedy(interface):
    _, _, decoder, *_ = encoded_by(interface, ALL)
    rows = [best for (best,) in greedy(decoder, Limits(LIMITS, 2))]
    found = search(interface, BeamSearch(beam=1, nbest=1), min_labels=2)
    assert [each.labels for (each,) in found] == [row.labels for row in rows]
    assert [each.complete for (each,) in found] == [row.complete for row in rows]
    assert [each.llm_passes for (each,) in found] == [row.llm_passes for row in rows]


@pytest.mark.parametrize("interface", INTERFACES)
def test_without_ctc_it_is_the_beam_of_the_llm(interface):
    alone = search(interface, BeamSearch(**WHOLE, length_exponent=0.0))
    with_ctc = search(interface, JointSearch(**WHOLE, scorers={"ctc": ScorerOptions(scale=0.0)}))
    assert [[each.labels for each in row] for row in with_ctc] == [[each.labels for each in row] for row in alone]


def test_with_ctc_alone_it_is_its_best_label_sequence():
    _, _, decoder, logits, _ = encoded_by("prefix", ALL)
    logits, lengths = logits[:, :5], torch.tensor([5, 4, 2])
    options = JointSearch(beam=500, nbest=1, scorers={"ctc": ScorerOptions(scale=1.0)})
    found = joint(decoder, logits, lengths, options, Limits([5, 5, 5]))
    exact = CTCBeamSearch(
        beam=5000, nbest=1, pruning=FramePruning(score_beam=None, frame_labels=None, min_log_prob=None)
    )
    for (each,), (best,) in zip(found, ctc_beam_of_logits(logits, lengths, exact), strict=True):
        assert each.labels == best.labels
        assert each.score == pytest.approx(best.score, abs=1e-4)


@pytest.mark.parametrize("changes", [{"vocabulary": 9}, {"collapse": 0.3}, {"vocabulary": 9, "collapse": 0.3}])
def test_thinned_out_posteriors(changes):
    together = search("prefix", flat(JointSearch, **WHOLE, **changes, ctc_scale=0.5))
    for row, hypotheses in enumerate(together):
        alone = search("prefix", flat(JointSearch, **WHOLE, **changes, ctc_scale=0.5), (row,))[0]
        assert alone[0].labels == hypotheses[0].labels
        if "vocabulary" in changes:
            assert len({label for each in hypotheses for label in each.labels}) <= 9
        assert hypotheses[0].score == pytest.approx(
            0.5 * (hypotheses[0].scores["speech_llm"] + hypotheses[0].scores["ctc"]), abs=1e-6
        )


@pytest.mark.parametrize("options", OPTIONS)
def test_logits_that_are_not_finite(options):
    model, *_ = encoded_by("prefix", ALL)
    head = model.llm.get_output_embeddings().weight
    kept = head.data.clone()
    try:
        head.data[5, 0] = nan
        with pytest.raises(ModelError, match="logits are not finite"):
            search("prefix", options)
    finally:
        head.data.copy_(kept)


def test_a_ctc_head_with_more_labels_than_the_llm():
    _, _, decoder, logits, lengths = encoded_by("prefix", ALL)
    with pytest.raises(ModelError, match="the CTC head has"):
        joint(decoder, torch.cat([logits] * 2, dim=2), lengths, JointSearch(), Limits(LIMITS))


def test_a_ctc_head_whose_logits_are_not_finite():
    _, _, decoder, logits, lengths = encoded_by("prefix", ALL)
    with pytest.raises(ModelError, match="CTC head's outputs are not finite"):
        joint(decoder, logits * nan, lengths, JointSearch(), Limits(LIMITS))


SCALES = {"speech_llm": 0.7, "ctc": 0.5, "length": 0.1, "ilm": -0.4}
FEW = 3  # labels and frames, so that every label sequence can be written down


@pytest.mark.parametrize("interface", INTERFACES)
@pytest.mark.parametrize("kind", ["joint", "joint_time_sync", "beam"])
def test_the_internal_lm_is_subtracted_as_in_the_sum_over_every_label_sequence(interface, kind):
    model = tiny_speech_llm(interface=interface, prompt="rwth").double()
    waveform = torch.from_numpy(tiny_waveforms(1)[0]).double()[None]
    with torch.inference_mode():
        decoder = model.decoder(model.acoustic.encode(waveform, torch.tensor([waveform.shape[1]])))
    eos = model.config.eos_id
    logits = 2.0 * torch.randn(1, FEW, FEW + 1, generator=torch.Generator().manual_seed(0)).double()
    lengths, size = torch.tensor([FEW]), FEW if kind != "beam" else num_embeddings(model.llm)
    ilm = internal_scorer(model, size)
    names = {"joint": [*SCALES], "joint_time_sync": ["speech_llm", "length", "ilm"], "beam": ["speech_llm", "ilm"]}[
        kind
    ]
    scorers = with_scales({}, {name: SCALES[name] for name in names})
    longest = FEW if kind != "beam" else 1
    paths = every_path(logits[0].log_softmax(-1), "sum")
    every = paths if kind != "beam" else [(), *((label,) for label in range(size))]
    sequences = [labels for labels in every if eos not in labels]
    parts = {
        "speech_llm": total(DecoderScorer(decoder, size), sequences),
        "ilm": total(ilm, sequences),
        "ctc": [paths.get(each, 0.0) for each in sequences],
        "length": [float(len(each)) for each in sequences],
    }
    scales = {**({} if kind == "beam" else {"ctc": 1.0}), **{name: SCALES[name] for name in names}}
    sums = [sum(scale * parts[name][row] for name, scale in scales.items()) for row in range(len(sequences))]
    if kind == "beam":
        sums = [score / (len(each) + 1) for each, score in zip(sequences, sums, strict=True)]
    expected = sorted((-score, each) for each, score in zip(sequences, sums, strict=True) if score > -inf)
    others, limits = [(ilm, SCALES["ilm"])], Limits([longest])
    whole = {"beam": 10_000, "nbest": 10_000, "scorers": scorers}
    if kind == "joint":
        options = JointSearch(**whole, pruning=JointPruning(window=None))
        (found,) = joint(decoder, logits, lengths, options, limits, others, pre_beam=None)
    elif kind == "beam":
        (found,) = decoder_beam(decoder, BeamSearch(**whole), limits, others)
    else:
        exact = FramePruning(score_beam=None, frame_labels=None, min_log_prob=None)
        options = JointTimeSyncSearch(**whole, pruning=exact)
        scorer = frame_scorer(decoder, size, options, others)
        (found,) = shallow_fusion_of_logits(logits, lengths, scorer, options)
    assert {each.labels: each.score for each in found} == pytest.approx({e: -s for s, e in expected}, abs=1e-4)
    assert found[0].labels == expected[0][1]


def total(scorer, sequences):
    """What a scorer gives to each label sequence of one utterance with its end."""
    longest = max(map(len, sequences))
    labels = torch.tensor([[*each, *[0] * (longest - len(each))] for each in sequences])
    rows, lengths = torch.zeros(len(sequences), dtype=torch.int64), torch.tensor([len(each) for each in sequences])
    with torch.inference_mode():
        state, given = scorer.extend(scorer.start(1), rows, labels, lengths)
        ends = scorer.log_probs(state, torch.arange(len(sequences)))[:, -1]
    return (given.sum(dim=1) + ends).tolist()
