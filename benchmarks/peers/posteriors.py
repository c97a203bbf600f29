"""Made-up CTC outputs: spikes between sure blanks, as trained heads give them.

Between spikes blank has 0.98 to 0.99999. Of the spikes 80 % have 0.9 to 0.999, 15 % have 0.5 to 0.9 and 5 % have 0.2 to
0.5; 30 % are two frames wide. Half of what a spike leaves goes to blank, most of the rest to three other labels, and
what remains anywhere is spread unevenly over all labels.
"""

import numpy as np
from numpy.typing import NDArray

FRAMES_PER_SPIKE = 10
ALTERNATIVES = 3
UNEVEN = 1.5


def simulate_ctc(frames: int, num_labels: int, seed: int = 0) -> tuple[NDArray[np.float32], list[int]]:
    """Log-probabilities (frames, labels + 1), blank last, and the labels that were put into them."""
    random = np.random.default_rng(seed)
    log_probs = np.empty((frames, num_labels + 1), np.float32)
    peaks: dict[int, int] = {}
    labels: list[int] = []
    for start in range(0, frames - FRAMES_PER_SPIKE + 1, FRAMES_PER_SPIKE):
        place, label = start + int(random.integers(0, FRAMES_PER_SPIKE - 2)), int(random.integers(num_labels))
        labels.append(label)
        peaks[place] = label
        if random.random() < 0.3:
            peaks[place + 1] = label
    for frame in range(frames):
        weights = np.exp(random.normal(scale=UNEVEN, size=num_labels).astype(np.float32))
        if frame in peaks:
            low, high = ((0.9, 0.999), (0.5, 0.9), (0.2, 0.5))[int(np.searchsorted([0.8, 0.95], random.random()))]
            peak = random.uniform(low, high)
            blank = (1 - peak) / 2
            rest = 0.2 * (1 - peak - blank)
            probs = weights * np.float32(rest / weights.sum())
            others = random.integers(num_labels, size=ALTERNATIVES)
            np.add.at(probs, others, 0.8 * (1 - peak - blank) * random.dirichlet(np.ones(ALTERNATIVES)))  # may be equal
            probs[peaks[frame]] += peak
        else:
            blank = 1 - 10 ** random.uniform(-5, np.log10(0.02))
            probs = weights * np.float32((1 - blank) / weights.sum())
        log_probs[frame, :-1] = np.log(probs)
        log_probs[frame, -1] = np.log(blank)
    return log_probs, labels
