"""Whisper, which reads 30 s of log-mel features whatever the utterance."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder.family import Convolution
from kikitori.model.features import WHISPER_HOP_SIZE, whisper_log_mel


class WhisperFamily:
    """The family of Whisper."""

    front_end: tuple[str, ...] = ("conv1", "conv2")
    takes_waveform = False

    def prepare(self, model: Any) -> None:
        """Nothing is to be mended."""

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Transformer's."""
        return cast(Sequence[nn.Module], model.layers)

    def convolutions(self, config: Any) -> list[Convolution]:  # noqa: ARG002
        """Two, the second with stride 2."""
        return [(3, 1, 1), (3, 2, 1)]

    def max_samples(self, config: Any) -> int | None:
        """30 s."""
        return int(config.max_source_positions) * 2 * WHISPER_HOP_SIZE

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:  # noqa: ARG002
        """ceil(samples / hop)."""
        return (num_samples + WHISPER_HOP_SIZE - 1) // WHISPER_HOP_SIZE

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features, padded with silence to 30 s.

        Raises:
            ModelError: An utterance is longer.
        """
        longest, limit = int(lengths.max()), int(config.max_source_positions) * 2 * WHISPER_HOP_SIZE
        if longest > limit:
            what = f"an utterance of {longest / SAMPLE_RATE:.2f} s is longer than Whisper's {limit / SAMPLE_RATE:g} s"
            raise ModelError(what, remedy="split the recording or use another encoder")
        num_frames = 2 * config.max_source_positions
        return whisper_log_mel(waveforms, lengths, num_mel_bins=config.num_mel_bins, num_frames=num_frames)

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:  # noqa: ARG002
        """Frames of the whole window, silence behind the utterance included."""
        return cast(Tensor, model(inputs.transpose(1, 2)).last_hidden_state)
