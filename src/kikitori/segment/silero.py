"""Silero VAD: a small recurrent network that tells speech from everything else (https://github.com/snakers4/silero-vad).

Waveform in, a probability of speech every 32 ms out. The weights are those of the `silero-vad` package; the network is
written out here, because its TorchScript goes window by window and is code besides, and importing the package sets the
number of threads of the whole process. All windows of a block go through the convolutions together.
"""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from kikitori.data.augment import Waveform
from kikitori.segment.base import WINDOW

PACKAGE, WEIGHTS = "silero_vad", Path("data") / "silero_vad_16k.safetensors"
CONTEXT = 64  # samples of the window before that a window is read with
TAIL = 64  # samples by which a window is mirrored at its end
BINS = 129  # of the spectrum; the front end gives their real, then their imaginary parts


class SileroNetwork(nn.Module):
    """The network for 16 kHz: spectrum, four convolutions, an LSTM over windows, a logistic output."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, windows: Tensor, state: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Windows with their context (windows, CONTEXT + WINDOW) to probabilities (windows,) and the next state."""
        spectrum = self.stft_conv(functional.pad(windows[:, None], (0, TAIL), mode="reflect"))
        frames = (spectrum[:, :BINS] ** 2 + spectrum[:, BINS:] ** 2).sqrt()
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            frames = convolution(frames).relu()
        hidden, state = self.lstm(frames[:, :, 0], state)
        return self.final_conv(hidden.relu().T)[0].sigmoid(), state


class SileroSegmenter:
    """A `Segmenter` by Silero VAD; needs `silero_available`."""

    def __init__(self) -> None:
        network = load_network()
        if network is None:
            raise RuntimeError("the package silero-vad is not installed")
        self._network = network
        self._context = np.zeros(CONTEXT, np.float32)
        self._state: tuple[Tensor, Tensor] | None = None

    @torch.inference_mode()
    def __call__(self, block: Waveform) -> NDArray[np.float32]:
        """As of `Segmenter`."""
        count = -(-len(block) // WINDOW)
        if not count:
            return np.empty(0, np.float32)
        samples = np.concatenate([self._context, block, np.zeros(count * WINDOW - len(block), np.float32)])
        windows = torch.from_numpy(samples).unfold(0, CONTEXT + WINDOW, WINDOW)
        probabilities, self._state = self._network(windows, self._state)
        self._context = samples[-CONTEXT:]
        found: NDArray[np.float32] = probabilities.numpy()
        return found


@cache
def load_network() -> SileroNetwork | None:
    """The network with its published weights; None where the package is not installed, or is of another layout."""
    spec = find_spec(PACKAGE)  # does not import it
    folders = [] if spec is None else spec.submodule_search_locations or []
    for folder in folders:
        network = SileroNetwork().eval()
        try:
            # torch's LSTM cell as the one layer of its LSTM
            weights = {
                f"lstm.{name.removeprefix('lstm_cell.')}_l0" if name.startswith("lstm_cell.") else name: value
                for name, value in load_file(Path(folder) / WEIGHTS).items()
            }
            network.load_state_dict(weights)
        except (OSError, SafetensorError, RuntimeError):
            continue
        return network
    return None
