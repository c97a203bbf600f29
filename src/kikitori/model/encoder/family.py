"""What an encoder family has to say for `SpeechEncoder`; `config` and `model` are those of transformers."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, Self

from torch import Tensor, nn

Convolution = tuple[int, int, int]
"""Kernel, stride, and padding on either side."""
Window = Literal["padded", "speech"]
"""What is read behind an utterance: silence up to 30 s, or half a second."""


class Family(Protocol):
    """An encoder family.

    Attributes:
        front_end: Names of the submodules that are the convolutional front end.
        final_norm: Names of those behind the last layer.
        takes_waveform: Whether its features are waveforms, and not log-mel.
        split: The same family as one whose encoder runs in two parts; None where it does not.
    """

    @property
    def front_end(self) -> tuple[str, ...]:
        """As above."""
        ...

    @property
    def final_norm(self) -> tuple[str, ...]:
        """As above."""
        ...

    @property
    def takes_waveform(self) -> bool:
        """As above."""
        ...

    @property
    def split(self) -> "SplitFamily | None":
        """As above."""
        ...

    def prepare(self, model: Any) -> None:
        """Mend what transformers would do otherwise, on a model that was just made or loaded."""
        ...

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """Transformer or Conformer layers, from the first."""
        ...

    def convolutions(self, config: Any) -> list[Convolution]:
        """The strided front end."""
        ...

    def max_samples(self, config: Any) -> int | None:
        """The longest utterance, None without a limit."""
        ...

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:
        """Length of the features of so many samples."""
        ...

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (batch, samples) or log-mel (batch, frames, bins), with lengths, of right-padded 16 kHz audio."""
        ...

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Last states (batch, frames, dim) from features; behind the valid frames stands anything."""
        ...


class SplitFamily(Family, Protocol):
    """A family whose encoder can be run in two parts, so that states between them may be kept, behind some window."""

    def with_window(self, window: Window) -> Self:
        """The same family behind another window."""
        ...

    def lower(self, model: Any, inputs: Tensor, lengths: Tensor, num_layers: int) -> Tensor:
        """States (batch, window, dim) after the first layers, of all that the following layers read."""
        ...

    def upper(self, model: Any, states: Tensor, lengths: Tensor, num_layers: int) -> Tensor:
        """Finished frames (batch, window, dim) from the states after the first layers."""
        ...

    def window_lengths(self, config: Any, lengths: Tensor) -> Tensor:
        """Frames of each utterance's window, (batch,), from the lengths of its features."""
        ...


def subsampled(convolutions: Sequence[Convolution], lengths: Tensor) -> Tensor:
    """Number of frames that a front end makes of so many features, at least 1."""
    lengths = lengths.clamp(min=min_features(convolutions))
    for kernel, stride, padding in convolutions:
        lengths = (lengths + 2 * padding - kernel) // stride + 1
    return lengths


def min_features(convolutions: Sequence[Convolution]) -> int:
    """Fewest features that a front end makes a frame of."""
    size = 1
    for kernel, stride, padding in reversed(convolutions):
        size = max((size - 1) * stride + kernel - 2 * padding, 1)
    return size
