"""`SpeechEncoder`: waveforms to frames, whatever the family."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.encoder.families.fastconformer import initialise_subsampling
from kikitori.model.encoder.family import SplitFamily, Window, subsampled
from kikitori.model.encoder.pretrained import (
    encoder_config,
    family_of,
    load_pretrained,
    model_class,
    pretrained_config,
)
from kikitori.model.features import LogMelConfig, mask_tail


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder says about a batch.

    Args:
        frames: (batch, frames, dim), zero behind each utterance.
        lengths: (batch,), valid frames.
        intermediate: The states (batch, frames, dim) after the layers that were asked for, in that order, zero behind
            each utterance; before a final layer normalisation of the whole encoder where the family has one.
        window: Where a family reads a window of fixed size (Whisper: 30 s) all its frames, (batch, window, dim), those
            behind the utterance as the encoder gives them; else None.
        window_lengths: How many of these count, (batch,).
    """

    frames: Tensor
    lengths: Tensor
    intermediate: tuple[Tensor, ...] = ()
    window: Tensor | None = None
    window_lengths: Tensor | None = None


class SpeechEncoder(nn.Module):
    """A pre-trained (or randomly initialised) speech encoder, in the attribute `model`.

    Utterances too short for one frame, one sample included, are padded with silence up to exactly one frame. Dropout,
    LayerDrop and the masking of hidden frames of the waveform families (`mask_time_prob`) follow the configuration.

    Args:
        config: Configuration of the encoder in transformers, or of a Parakeet recogniser whose encoder is meant. The
            extra entry `do_normalize` (zero mean and unit variance of the waveform) is used and kept if present; the
            default is True for layer-norm front ends (large models) and False for group-norm ones (base models).
        model: The encoder to adopt, with its configuration: of transformers, or one that has the same parts; None makes
            one with random weights.

    Raises:
        ModelError: The model type is none of the supported families.
    """

    def __init__(self, config: Any, *, model: nn.Module | None = None) -> None:
        super().__init__()
        own: Any = encoder_config(config) if model is None else model.config
        self.model: Any = model_class(own.model_type)(own) if model is None else model
        if model is None and own.model_type == "parakeet_encoder":
            initialise_subsampling(self.model)
        self.config: Any = own
        self.family = family_of(own)
        self.family.prepare(self.model)
        self.log_mel_config = LogMelConfig(num_mel_bins=getattr(self.config, "num_mel_bins", 80))

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, *, revision: str | None = None) -> Self:
        """Load float32 weights from a directory or the hub, from safetensors only and without remote code.

        Checkpoints of whole recognisers (CTC, Whisper, Parakeet) are accepted; their encoder is taken.

        Raises:
            ModelError: Nothing there, an unsupported family, pickled, damaged or missing weights.
        """
        config, model = load_pretrained(path_or_id, revision)
        return cls(config, model=model)

    @staticmethod
    def pretrained_config(path_or_id: str | Path, *, revision: str | None = None) -> Any:
        """The configuration of a pre-trained encoder, for one of the same shape; its weights are not touched.

        Raises:
            ModelError: Nothing there, or an unsupported family.
        """
        return pretrained_config(path_or_id, revision)

    @property
    def dim(self) -> int:
        """Size of a frame."""
        return int(self.config.hidden_size)

    @property
    def num_layers(self) -> int:
        """Number of Transformer or Conformer layers."""
        return len(self.layers)

    @property
    def layers(self) -> list[nn.Module]:
        """The Transformer or Conformer layers, from the first."""
        return [*self.family.layers(self.model)]

    @property
    def takes_waveform(self) -> bool:
        """True if `features` gives waveforms, False if it gives log-mel features (batch, frames, bins)."""
        return self.family.takes_waveform

    @property
    def seconds_per_frame(self) -> float:
        """Distance of neighbouring frames."""
        return self.inputs_per_frame * (1 if self.takes_waveform else self.log_mel_config.hop_size) / SAMPLE_RATE

    @property
    def inputs_per_frame(self) -> int:
        """Samples or log-mel frames from one frame to the next."""
        return math.prod(stride for _, stride, _ in self.family.convolutions(self.config))

    @property
    def first_frame(self) -> float:
        """When the sound begins that the first frame is about, in seconds; before the utterance where that is padded.

        A frame is about the stretch of `seconds_per_frame` around the middle of what the front end reads for it.
        """
        middle, step = 0.0, 1
        for kernel, stride, padding in self.family.convolutions(self.config):
            middle += ((kernel - 1) / 2 - padding) * step
            step *= stride
        return (middle / self.inputs_per_frame - 0.5) * self.seconds_per_frame

    @property
    def max_samples(self) -> int | None:
        """The longest utterance the family can take (Whisper: 30 s), None if there is no limit."""
        return self.family.max_samples(self.config)

    def output_lengths(self, num_samples: Tensor) -> Tensor:
        """Exact number of frames for utterances of so many samples (any integer tensor), at least 1."""
        return subsampled(self.family.convolutions(self.config), self.family.num_features(self.config, num_samples))

    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode` reads: normalised waveforms (batch, samples) or log-mel (batch, frames, bins), and lengths.

        Raises:
            ModelError: An utterance is longer than `max_samples`.
        """
        return self.family.features(self.config, waveforms, lengths)

    def encode(self, inputs: Tensor, input_lengths: Tensor, *, layers: Sequence[int] = ()) -> EncoderOutput:
        """Frames from what `features` gave, possibly augmented in between.

        Args:
            inputs: (batch, samples) or (batch, frames, bins).
            input_lengths: (batch,).
            layers: 1-based layers whose states are wanted as well. If LayerDrop skips such a layer in training, the
                state that runs past it is given.

        Raises:
            ModelError: There is no such layer.
        """
        inputs = inputs.to(next(self.model.parameters()).dtype)
        return self._record(lambda: self.family.frames(self.model, inputs, input_lengths), input_lengths, layers)

    def encode_lower(self, inputs: Tensor, input_lengths: Tensor, num_layers: int) -> Tensor:
        """States (batch, window, dim) after the first layers, all that the others read; see `encode`.

        Raises:
            ModelError: The family's encoder runs as a whole.
        """
        inputs = inputs.to(next(self.model.parameters()).dtype)
        return self._split().lower(self.model, inputs, input_lengths, num_layers)

    def encode_upper(
        self, states: Tensor, input_lengths: Tensor, num_layers: int, *, layers: Sequence[int] = ()
    ) -> EncoderOutput:
        """What `encode` gives, from the states after the first layers.

        Args:
            states: (batch, window, dim) from `encode_lower`.
            input_lengths: (batch,), of the inputs.
            num_layers: The layers behind the states.
            layers: As in `encode`, each above `num_layers`.

        Raises:
            ModelError: There is no such layer, or the family's encoder runs as a whole.
        """
        split = self._split()
        return self._record(lambda: split.upper(self.model, states, input_lengths, num_layers), input_lengths, layers)

    def set_window(self, window: Window) -> None:
        """Sets what a Whisper encoder reads behind an utterance; its configuration keeps it.

        Raises:
            ModelError: The family has no window.
        """
        self.family = self._split().with_window(window)
        self.config.window = window

    def with_window(self, window: Window) -> Self:
        """The same encoder, with the same weights in memory, behind another window.

        Raises:
            ModelError: The family has no window.
        """
        other = copy.copy(self)
        other.family = self._split().with_window(window)
        return other

    def _split(self) -> SplitFamily:
        if (split := self.family.split) is None:
            raise ModelError(f"an encoder of type '{self.config.model_type}' runs as a whole", remedy="use Whisper")
        return split

    def _record(self, run: Callable[[], Tensor], input_lengths: Tensor, layers: Sequence[int]) -> EncoderOutput:
        """The output with the states after some layers, all cut to the speech."""
        if not set(layers) <= set(range(1, self.num_layers + 1)):
            raise ModelError(f"no layer {list(layers)}: the encoder has layers 1 to {self.num_layers}")
        with _record_states(self.layers if layers else []) as states:
            frames = run()
        lengths = subsampled(self.family.convolutions(self.config), input_lengths)
        wanted = [frames, *(_state_after(layer, states, frames) for layer in layers)]
        cut = [mask_tail(state[:, : int(lengths.max())], lengths) for state in wanted]
        output = EncoderOutput(frames=cut[0], lengths=lengths, intermediate=tuple(cut[1:]))
        if (split := self.family.split) is None:
            return output
        return replace(output, window=frames, window_lengths=split.window_lengths(self.config, input_lengths))

    def forward(self, waveforms: Tensor, lengths: Tensor, *, layers: Sequence[int] = ()) -> EncoderOutput:
        """Frames of right-padded float32 waveforms (batch, samples) with lengths (batch,); see `encode`."""
        return self.encode(*self.features(waveforms, lengths), layers=layers)

    def train(self, mode: bool = True) -> Self:
        """As in torch, but what is frozen does not drift.

        A wholly frozen encoder stays in evaluation mode, and so do, in one that learns in part, frozen layers and (with
        LoRA) frozen batch norms.
        """
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        for layer in self.layers:
            layer.train(layer.training and any(parameter.requires_grad for parameter in layer.parameters()))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm1d) and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self


@contextmanager
def _record_states(layers: Sequence[nn.Module]) -> Iterator[dict[int, Tensor]]:
    """Collect the state before (index i) and after (index i + 1) every layer that runs."""
    states: dict[int, Tensor] = {}

    def watch(index: int, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        states.setdefault(index, args[0])
        states[index + 1] = output[0] if isinstance(output, tuple) else output

    handles = [layer.register_forward_hook(partial(watch, index)) for index, layer in enumerate(layers)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def _state_after(layer: int, states: dict[int, Tensor], frames: Tensor) -> Tensor:
    """The running state after a 1-based layer, whether or not LayerDrop skipped it; `frames` if no layer ran at all."""
    if not states:
        return frames
    return states[max((index for index in states if index <= layer), default=min(states))]
