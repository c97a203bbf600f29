"""Times of labels by cross-attention, against the code of transformers and against all paths."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from kikitori.align.attention import attention_jumps, attention_words


def _weights(heads, rows, frames, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(heads, rows, frames, generator=generator).mul(3.0).softmax(dim=-1)


def _theirs(weights, width):
    values = weights[None]
    spread = values.std(dim=-2, keepdim=True, unbiased=False)
    values = _median_filter((values - values.mean(dim=-2, keepdim=True)) / spread, width).mean(dim=1)[0]
    rows, frames = _dynamic_time_warping(-values.double().numpy())
    return frames[np.pad(np.diff(rows), (1, 0), constant_values=1).astype(bool)]


@pytest.mark.parametrize(("rows", "frames"), [(2, 2), (2, 3), (3, 9), (9, 3), (20, 60), (60, 20)])
def test_jumps_are_those_of_transformers(rows, frames):
    for seed in range(5):
        weights = _weights(3, rows, frames, seed)
        for width in (1, 3, 7):
            assert attention_jumps(weights, width).tolist() == _theirs(weights, width).tolist()


def _paths(rows, frames):
    """All monotone paths from the first row and frame to the last ones."""
    if (rows, frames) == (1, 1):
        return [[(0, 0)]]
    before = [(rows - a, frames - b) for a, b in ((1, 1), (1, 0), (0, 1)) if rows > a and frames > b]
    return [[*path, (rows - 1, frames - 1)] for pair in before for path in _paths(*pair)]


def test_the_path_is_the_best_of_all():
    for seed, (rows, frames) in enumerate([(2, 5), (4, 4), (5, 3), (3, 6)]):
        weights = _weights(1, rows, frames, seed)
        values = weights[0].double()
        values = ((values - values.mean(dim=0)) / values.std(dim=0, unbiased=False)).numpy()
        best = max(_paths(rows, frames), key=lambda path: sum(values[place] for place in path))
        first = [min(frame for row, frame in best if row == each) for each in range(rows)]
        assert attention_jumps(weights, 1).tolist() == first


def test_words_take_the_times_of_their_labels():
    weights = torch.full((1, 5, 50), 1e-3)
    for row, frame in enumerate((5, 10, 20, 30, 40)):  # the last row writes the end
        weights[0, row, frame : frame + 10] = 1.0
    text = "ab cd e"
    options = {"median_width": 1, "seconds": 1.0, "seconds_per_frame": 0.02}
    words = attention_words(weights, np.log([0.5, 0.5, 0.4, 0.9]), [0, 1, 4, 6], text, "en", **options)
    assert [word.word for word in words] == ["ab", "cd", "e"]
    assert [word.start for word in words] == pytest.approx([0.0, 0.4, 0.6])
    assert [word.end for word in words] == pytest.approx([0.4, 0.6, 0.8])
    assert [word.confidence for word in words] == pytest.approx([0.5, 0.4, 0.9])
    early = attention_words(
        weights, np.log([0.5, 0.5, 0.4, 0.9]), [0, 1, 4, 6], text, "en", first_frame=-0.1, **options
    )
    assert [word.start for word in early] == pytest.approx([0.0, 0.3, 0.5])
    joined = attention_words(weights, np.log([0.5, 0.5, 0.4, 0.9]), [0, 1, 2, 3], "今日は雨", "ja", **options)
    assert "".join(word.word for word in joined) == "今日は雨"
    assert all(a.end <= b.start for a, b in pairwise(joined))


def test_frames_that_all_labels_attend_to_alike_do_not_spoil_the_rest():
    weights = _weights(2, 4, 12, 0)
    weights[:, :, 3] = 0.25
    assert attention_jumps(weights[:, :2, :1], 7).tolist() == [0, 0]  # transformers finds no path
    assert all(0 <= a <= b < 12 for a, b in pairwise(attention_jumps(weights, 3).tolist()))
