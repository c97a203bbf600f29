from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from kikitori.model.encoder import SpeechEncoder
from kikitori.train.loop.state import learnt, statistics, weights
from kikitori.train.tasks.masked_predictor import MaskedPredictor, draw_mask
from tests.tiny import shake, tiny_encoder_config, tiny_waveform


def masks(count, frames, span, share):
    return np.stack([draw_mask(frames, span, share, np.random.default_rng([7, i])) for i in range(count)])


def runs(mask):
    """Lengths of the stretches of hidden frames."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return edges[1::2] - edges[::2]


@pytest.mark.parametrize(("frames", "span", "share"), [(100, 5, 0.5), (37, 4, 0.3), (64, 10, 0.65), (20, 1, 0.2)])
def test_the_share_of_hidden_frames_is_the_stated_one(frames, span, share):
    drawn = masks(2000, frames, span, share)
    assert drawn.mean() == pytest.approx(share, abs=0.01)
    # Not on average alone: one utterance has a stretch more than another at most.
    expected = share * frames / span
    assert {*drawn.sum(axis=1).tolist()} <= {int(expected) * span, int(np.ceil(expected)) * span}
    assert all(length % span == 0 for mask in drawn[:200] for length in runs(mask))  # stretches may touch


def test_all_ways_to_place_the_stretches_are_equally_likely():
    frames, span, count = 8, 2, 2
    ways = [
        tuple(np.isin(np.arange(frames), [start + i for start in starts for i in range(span)]).tolist())
        for starts in combinations(range(frames - span + 1), count)
        if starts[1] - starts[0] >= span
    ]
    assert len(ways) == 15
    drawn = Counter(tuple(mask.tolist()) for mask in masks(15000, frames, span, span * count / frames))
    assert drawn.keys() == {*ways}
    assert all(850 < number < 1150 for number in drawn.values())


@pytest.mark.parametrize("frames", range(1, 14))
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_short_utterances_hide_something_and_keep_something(frames, share):
    for mask in masks(50, frames, 5, share):
        assert len(mask) == frames
        assert mask.any()
        assert max(runs(mask)) >= min(5, max(1, frames // 2))
        if frames > 1 and share < 0.9:
            assert not mask.all()


def predictor(family="parakeet", upsample=3):
    torch.manual_seed(0)
    encoder = SpeechEncoder(tiny_encoder_config(family)).eval()
    shake(encoder, 0, 0.1)
    means = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    return MaskedPredictor(encoder, means, upsample).eval()


@pytest.mark.parametrize("family", ["parakeet", "whisper"])
def test_all_of_a_hidden_frame_is_hidden_and_nothing_else(family):
    model = predictor(family)
    model.mask.data.fill_(0.25)
    waveforms = torch.from_numpy(np.stack([tiny_waveform(1.0, 0), tiny_waveform(1.0, 1)]))
    inputs, lengths = model.encoder.features(waveforms, torch.tensor([16000, 12000]))
    frames = int(model.encoder.output_lengths(torch.tensor(16000)))
    each = {"parakeet": 8, "whisper": 2}[family]
    assert model.encoder.inputs_per_frame == each
    chosen = torch.zeros(2, frames, dtype=torch.bool)
    chosen[0, 2:5] = chosen[0, -1] = chosen[1, 0] = True
    hidden = model.hidden(inputs, chosen)
    for row in range(2):
        for place in range(inputs.shape[1]):
            frame = place // each
            if frame < frames and chosen[row, frame]:
                assert (hidden[row, place] == 0.25).all()
            else:
                assert torch.equal(hidden[row, place], inputs[row, place])
    # What is hidden does not reach the encoder at all, and what is not does.
    with torch.inference_mode():
        output = model(inputs, lengths, chosen)
        noise = torch.randn(inputs.shape, generator=torch.Generator().manual_seed(1))
        inside = inputs.clone()
        inside[0, 2 * each : 5 * each] = noise[0, 2 * each : 5 * each]
        assert torch.equal(model(inside, lengths, chosen).frames, output.frames)
        inside[0, 5 * each] += 1.0
        assert not torch.equal(model(inside, lengths, chosen).frames, output.frames)


def test_what_hides_is_learnt():
    model = predictor()
    inputs, lengths = model.encoder.features(torch.from_numpy(tiny_waveform(0.8))[None], torch.tensor([12800]))
    chosen = torch.zeros(1, int(model.encoder.output_lengths(torch.tensor(12800))), dtype=torch.bool)
    chosen[0, 3] = True
    model(inputs, lengths, chosen).frames[0, 3].sum().backward()
    assert model.mask.grad.abs().min() > 0


def test_each_output_of_a_frame_has_scores_of_its_own():
    model = predictor(upsample=3)
    frames = torch.randn(5, model.encoder.dim, generator=torch.Generator().manual_seed(0))
    scores = model.logits(frames)
    assert scores.shape == (5, 3, 6)
    expected = frames @ model.head.weight.T + model.head.bias
    for output in range(3):
        torch.testing.assert_close(scores[:, output], expected[:, 6 * output : 6 * output + 6])


def test_checkpoints_hold_the_clusters_and_processes_do_not_average_them():
    model = predictor()
    expected = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    assert np.array_equal(model.means, expected)
    assert "means_as_bits" in learnt(model, ())
    assert "means_as_bits" not in statistics(model)
    other = MaskedPredictor(model.encoder, np.zeros_like(expected), 3)
    other.load_state_dict(weights(model), strict=False)
    assert np.array_equal(other.means, expected)
