import math
import re

import numpy as np
import pytest
import soundfile
import torch

from kikitori.data.rows import listed
from kikitori.data.speech import SpeechLoader
from kikitori.errors import AudioError, ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.features import log_mel
from kikitori.train.losses.frame_targets import (
    AT_ONCE,
    MELS,
    FrameTargets,
    LayerStates,
    LogMelStacks,
    fit_clusters,
    k_means,
    nearest,
    perplexity,
)
from kikitori.types import Utterance
from tests.tiny import ENCODERS, shake, tiny_encoder_config, tiny_waveform, tiny_waveforms

SECONDS = (0.5, 0.8, 0.31, 1.2)


@pytest.fixture
def speech(tmp_path):
    rows = []
    for index, seconds in enumerate(SECONDS):
        soundfile.write(tmp_path / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        rows.append(Utterance(tmp_path / f"{index}.wav", seconds, utt_id=str(index)))
    return SpeechLoader(listed(rows))


def test_a_log_mel_frame_has_its_neighbours_beside_it():
    waveform = tiny_waveform(0.2)
    rows = LogMelStacks()(waveform)
    mels = log_mel(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]), MELS)[0][0].numpy()
    assert rows.shape == (20, 130)
    stacked = rows.reshape(20, 26, 5)
    for frame in range(20):
        for place in range(5):
            neighbour = min(max(frame + place - 2, 0), 19)
            assert np.array_equal(stacked[frame, :, place], mels[neighbour])
    assert LogMelStacks().seconds == 0.01
    assert LogMelStacks()(np.zeros(5, np.float32)).shape == (1, 130)


@pytest.mark.parametrize("family", ENCODERS)
def test_states_are_those_of_the_layer(family):
    torch.manual_seed(0)
    encoder = SpeechEncoder(tiny_encoder_config(family)).eval()
    shake(encoder, 0, 0.1)
    waveform = tiny_waveform(0.7)
    states = LayerStates(encoder, 1)
    rows = states(waveform)
    with torch.inference_mode():
        expected = encoder(torch.from_numpy(waveform)[None], torch.tensor([len(waveform)]), layers=[1, 2])
    assert np.array_equal(rows, expected.intermediate[0][0].numpy())
    assert not np.array_equal(rows, expected.intermediate[1][0].numpy())
    assert len(rows) == math.ceil(0.7 / states.seconds) or family in ("hubert", "wav2vec2", "wavlm")


def test_clusters_come_from_all_utterances_and_say_how_they_are_used(speech):
    lines = []
    means = fit_clusters(LogMelStacks(), speech, 4, 1, lines.append)
    assert means.shape == (4, 130)
    counts = np.bincount(nearest(np.concatenate([LogMelStacks()(speech.read(i)) for i in range(4)]), means))
    frames = sum(round(100 * seconds) for seconds in SECONDS)
    used = perplexity(counts)
    assert lines == [f"targets: 4 clusters from {frames} frames of 4 utterances; 4 in use, perplexity {used:.1f}"]
    assert np.array_equal(fit_clusters(LogMelStacks(), speech, 4, 1, lines.append), means)
    assert not np.array_equal(fit_clusters(LogMelStacks(), speech, 4, 2, lines.append), means)


def test_large_corpora_give_a_few_frames_of_many_utterances(speech):
    speech.utterances = [*speech.utterances] * 20
    lines = []
    fit_clusters(LogMelStacks(), speech, 2, 1, lines.append)
    frames, utterances = map(int, re.search(r"from (\d+) frames of (\d+) utterances", lines[0]).groups())
    assert 512 <= frames < 562  # 256 a cluster, and so no utterance more
    assert 31 * utterances < frames <= 50 * utterances


def test_more_clusters_than_frames_are_refused(speech):
    with pytest.raises(ConfigError, match=r"targets\.clusters: 281 frames of speech do not make 300 clusters"):
        fit_clusters(LogMelStacks(), speech, 300, 1, print)


def test_unreadable_files_do_not_keep_the_others_from_being_clustered(speech):
    speech.utterances[3].audio_filepath.write_text("no audio")
    lines = []
    fit_clusters(LogMelStacks(), speech, 2, 1, lines.append)
    assert "161 frames of 3 utterances" in lines[0]
    labels = FrameTargets(LogMelStacks(), speech)
    with pytest.raises(AudioError):
        labels.at_outputs(3, np.zeros((2, 130), np.float32), 10, 0.02, 16000)


class Clock:
    """The frame's number, ten times a second."""

    seconds = 0.1

    def __init__(self):
        self.asked = 0

    def __call__(self, waveform):
        self.asked += 1
        return np.arange(len(waveform) // 1600, dtype=np.float32)[:, None]


NUMBERS = np.arange(20, dtype=np.float32)[:, None]


def test_an_output_has_the_frame_at_its_middle(speech):
    labels = FrameTargets(Clock(), speech)
    samples = round(SECONDS[3] * SAMPLE_RATE)
    assert labels.at_outputs(3, NUMBERS, 12, 0.1, samples).tolist() == list(range(12))
    # Twice as many outputs hear each frame twice; outputs behind the end hear the last one.
    assert labels.at_outputs(3, NUMBERS, 26, 0.05, samples).tolist() == [*np.arange(12).repeat(2), 11, 11]
    assert labels.at_outputs(3, NUMBERS, 4, 0.3, samples).tolist() == [1, 4, 7, 10]
    assert labels.features.asked == 1  # it is kept


def test_faster_speech_has_its_frames_earlier(speech):
    labels = FrameTargets(Clock(), speech)
    faster = round(SECONDS[3] * SAMPLE_RATE / 1.5)
    assert labels.at_outputs(3, NUMBERS, 8, 0.1, faster).tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    slower = round(SECONDS[3] * SAMPLE_RATE / 0.5)
    assert labels.at_outputs(3, NUMBERS, 24, 0.1, slower).tolist() == np.arange(12).repeat(2).tolist()


def test_states_at_the_rate_of_the_outputs_are_taken_one_for_one(tmp_path):
    torch.manual_seed(0)
    encoder = SpeechEncoder(tiny_encoder_config("parakeet")).eval()
    features = LayerStates(encoder, 2)
    for number, waveform in enumerate(tiny_waveforms(6)):
        file = tmp_path / f"{number}.wav"
        soundfile.write(file, waveform, SAMPLE_RATE, subtype="FLOAT")
        labels = FrameTargets(features, SpeechLoader(listed([Utterance(file, len(waveform) / SAMPLE_RATE)])))
        states = features(waveform)
        means = states[:: max(1, len(states) // 5)].copy()
        outputs = int(encoder.output_lengths(torch.tensor(len(waveform))))
        found = labels.at_outputs(0, means, outputs, features.seconds, len(waveform))
        assert found.tolist() == nearest(states, means).tolist()


def test_perplexity_is_the_number_of_clusters_in_even_use():
    assert perplexity(np.array([5, 5, 5, 0, 5])) == pytest.approx(4.0)
    assert perplexity(np.array([9, 0, 0])) == pytest.approx(1.0)
    assert perplexity(np.array([3, 1])) == pytest.approx(math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25)))


def cloud(centres, each, spread, seed=0):
    generator = np.random.default_rng(seed)
    rows = centres.repeat(each, axis=0) + spread * generator.standard_normal((len(centres) * each, centres.shape[1]))
    return rows.astype(np.float32)


def inertia(rows, means):
    return np.square(rows - means[nearest(rows, means)]).sum()


def test_the_nearest_mean_is_that_of_every_distance():
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((AT_ONCE + 50, 3)).astype(np.float32)
    means = generator.standard_normal((7, 3)).astype(np.float32)
    apart = np.square(rows[:, None] - means).sum(axis=2)
    assert nearest(rows, means).tolist() == apart.argmin(axis=1).tolist()


def test_clouds_far_apart_are_the_clusters():
    centres = np.random.default_rng(1).uniform(-100, 100, (12, 4))
    rows = cloud(centres, each=20, spread=0.1)
    means = k_means(rows, 12, np.random.default_rng(0))
    found = nearest(rows, means).reshape(12, 20)
    assert all(len({*row}) == 1 for row in found.tolist())
    assert sorted(found[:, 0].tolist()) == list(range(12))
    expected = rows.reshape(12, 20, 4).mean(axis=1)
    np.testing.assert_allclose(means[found[:, 0]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_it_ends_where_every_mean_is_that_of_its_rows(seed):
    rows = cloud(np.random.default_rng(seed).uniform(-1, 1, (5, 2)), each=10, spread=0.3, seed=seed)
    means = k_means(rows, 4, np.random.default_rng(seed))
    chosen = nearest(rows, means)
    for number in range(4):
        np.testing.assert_allclose(means[number], rows[chosen == number].mean(axis=0), rtol=1e-4, atol=1e-5)
    random = rows[np.random.default_rng(seed).permutation(len(rows))[:4]]
    assert inertia(rows, means) < inertia(rows, random)


def test_no_cluster_stays_empty_while_there_are_different_rows():
    different = np.arange(6, dtype=np.float32)[:, None] ** 2
    rows = different.repeat([500, 1, 1, 1, 1, 1], axis=0)
    means = k_means(rows, 6, np.random.default_rng(0))
    assert sorted(means[:, 0].tolist()) == different[:, 0].tolist()
    few = k_means(rows[:502], 6, np.random.default_rng(0))  # 3 different rows
    assert np.isfinite(few).all()
    assert inertia(rows[:502], few) == 0.0


def test_the_seed_alone_decides():
    rows = cloud(np.zeros((1, 3)), each=200, spread=1.0)
    first, again, other = (k_means(rows, 9, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
