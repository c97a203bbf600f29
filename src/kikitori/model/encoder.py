"""The speech encoder: one interface over the public encoder families.

In: right-padded 16 kHz waveforms (batch, samples) with lengths. Out: frames (batch, frames, dim) with exact lengths,
zero behind each utterance. In evaluation mode an utterance gives the same frames whatever it is batched with.
Families: HuBERT, wav2vec 2.0, WavLM (waveform), Whisper and Parakeet, that is FastConformer (log-mel).
"""

import copy
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoConfig, HubertModel, ParakeetEncoder, PreTrainedConfig, Wav2Vec2Model, WavLMModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder
from transformers.utils.hub import cached_file

from kikitori.errors import ModelError
from kikitori.model.features import WHISPER_HOP_SIZE, LogMelConfig, log_mel, mask_tail, valid_mask, whisper_log_mel
from kikitori.model.safety.config import check_config, one_line_errors, quiet_transformers, read_json
from kikitori.model.safety.weights import check_weights, no_larger_than
from kikitori.model.weights import check_finite

SAMPLE_RATE = 16000
VARIANCE_FLOOR = 1e-7  # of the waveform normalisation, as in transformers
MODEL_CLASSES: dict[str, Any] = {
    "hubert": HubertModel,
    "wav2vec2": Wav2Vec2Model,
    "wavlm": WavLMModel,
    "whisper": WhisperEncoder,
    "parakeet_encoder": ParakeetEncoder,
}
WAVEFORM_TYPES = ("hubert", "wav2vec2", "wavlm")
WRAPPING_TYPES = ("parakeet_ctc", "parakeet_tdt", "parakeet_rnnt")  # their configuration holds an encoder_config
CONV_FRONT_ENDS = {"whisper": ("conv1", "conv2"), "parakeet_encoder": ("subsampling",)}  # else feature_extractor
TRAINING_ONLY_WEIGHTS = {"masked_spec_embed"}  # missing in some checkpoints; no part of recognition
PARAKEET_FEATURES = {"hop_length": 160, "n_fft": 512, "win_length": 400, "preemphasis": 0.97}

FreezePlan = Literal["none", "conv_front_end", "all"]


@dataclass(frozen=True)
class EncoderOutput:
    """What the encoder says about a batch.

    Args:
        frames: (batch, frames, dim), zero behind each utterance.
        lengths: (batch,), valid frames.
        intermediate: The states (batch, frames, dim) after the layers that were asked for, in that order, zero behind
            each utterance; before a final layer normalisation of the whole encoder where the family has one.
        window: Where a family hears a window of fixed size (Whisper: 30 s) all frames of it, (batch, window, dim),
            those behind the utterance as the encoder gives them; else None.
    """

    frames: Tensor
    lengths: Tensor
    intermediate: tuple[Tensor, ...] = ()
    window: Tensor | None = None


class SpeechEncoder(nn.Module):
    """A pre-trained (or randomly initialised) speech encoder of transformers, in the attribute `model`.

    Utterances too short for one frame, one sample included, are padded with silence up to exactly one frame. Dropout,
    LayerDrop and the masking of hidden frames of the waveform families (`mask_time_prob`) follow the configuration.

    Args:
        config: Configuration of the encoder, or of a Parakeet recogniser whose encoder is meant. The extra entry
            `do_normalize` (zero mean and unit variance of the waveform) is used and kept if present; the default is
            True for layer-norm front ends (large models) and False for group-norm ones (base models).
        model: Weights to adopt; random ones if None.

    Raises:
        ModelError: The model type is none of the supported families.
    """

    def __init__(self, config: PreTrainedConfig, *, model: nn.Module | None = None) -> None:
        super().__init__()
        own: Any = _encoder_config(config) if model is None else model.config
        self.model: Any = MODEL_CLASSES[own.model_type](own) if model is None else model
        if model is None and own.model_type == "parakeet_encoder":
            _initialise_subsampling(self.model.subsampling)
        self.config: Any = own
        self.log_mel_config = LogMelConfig(num_mel_bins=getattr(self.config, "num_mel_bins", 80))
        if self.takes_waveform:
            if not hasattr(self.config, "do_normalize"):
                self.config.do_normalize = self.config.feat_extract_norm == "layer"
            # Else training computes gradients for the waveform, which only re-entrant checkpointing needs.
            self.model.get_submodule("feature_extractor")._requires_grad = False
        elif self.config.model_type == "parakeet_encoder":
            for layer in self._layers:
                layer.get_submodule("self_attn").register_forward_pre_hook(_mask_keys_only, with_kwargs=True)

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, *, revision: str | None = None) -> Self:
        """Load float32 weights from a directory or the hub, from safetensors only and without remote code.

        Checkpoints of whole recognisers (CTC, Whisper, Parakeet) are accepted; their encoder is taken.

        Raises:
            ModelError: Nothing there, an unsupported family, pickled, damaged or missing weights.
        """
        config = cls.pretrained_config(path_or_id, revision=revision)
        size = check_weights(path_or_id)
        with one_line_errors(path_or_id), quiet_transformers(), no_larger_than(size, path_or_id):
            model, info = MODEL_CLASSES[config.model_type].from_pretrained(
                path_or_id,
                config=config,
                revision=revision,
                use_safetensors=True,
                dtype=torch.float32,
                key_mapping={r"^(model\.)?encoder\.": ""} if config.model_type not in WAVEFORM_TYPES else None,
                output_loading_info=True,
            )
        missing = sorted(set(info["missing_keys"]) - TRAINING_ONLY_WEIGHTS)
        if missing:
            what = f"{len(missing)} encoder weights are missing, the first is {missing[0]}"
            raise ModelError(what, where=path_or_id, remedy="check that the weights belong to config.json")
        for name, weight in model.state_dict().items():
            check_finite(path_or_id, name, weight)
        return cls(config, model=model)

    @staticmethod
    def pretrained_config(path_or_id: str | Path, *, revision: str | None = None) -> Any:
        """The configuration of a pre-trained encoder, for one of the same shape; its weights are not touched.

        Raises:
            ModelError: Nothing there, or an unsupported family.
        """
        check_config(path_or_id, read_json(path_or_id, "config.json"))
        with one_line_errors(path_or_id), quiet_transformers():
            found = AutoConfig.from_pretrained(path_or_id, revision=revision, trust_remote_code=False)
            config = _encoder_config(found, where=path_or_id)
            _read_preprocessor(path_or_id, revision, config)
        return config

    @property
    def dim(self) -> int:
        """Size of a frame."""
        return int(self.config.hidden_size)

    @property
    def num_layers(self) -> int:
        """Number of Transformer or Conformer layers."""
        return len(self._layers)

    @property
    def takes_waveform(self) -> bool:
        """True if `features` gives waveforms, False if it gives log-mel features (batch, frames, bins)."""
        return self.config.model_type in WAVEFORM_TYPES

    @property
    def seconds_per_frame(self) -> float:
        """Distance of neighbouring frames."""
        return self.inputs_per_frame * (1 if self.takes_waveform else self.log_mel_config.hop_size) / SAMPLE_RATE

    @property
    def inputs_per_frame(self) -> int:
        """Samples or log-mel frames from one frame to the next."""
        return math.prod(stride for _, stride, _ in self._convolutions)

    @property
    def max_samples(self) -> int | None:
        """The longest utterance the family can take (Whisper: 30 s), None if there is no limit."""
        if self.config.model_type != "whisper":
            return None
        return int(self.config.max_source_positions) * 2 * WHISPER_HOP_SIZE

    def output_lengths(self, num_samples: Tensor) -> Tensor:
        """Exact number of frames for utterances of so many samples (any integer tensor), at least 1."""
        match self.config.model_type:
            case "whisper":
                return self._subsampled((num_samples + WHISPER_HOP_SIZE - 1) // WHISPER_HOP_SIZE)
            case "parakeet_encoder":
                return self._subsampled(self.log_mel_config.num_frames(num_samples))
            case _:
                return self._subsampled(num_samples)

    def features(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode` reads: normalised waveforms (batch, samples) or log-mel (batch, frames, bins), and lengths."""
        longest, limit = int(lengths.max()), self.max_samples
        if limit is not None and longest > limit:
            what = f"an utterance of {longest / SAMPLE_RATE:.2f} s is longer than Whisper's {limit / SAMPLE_RATE:g} s"
            raise ModelError(what, remedy="split the recording or use another encoder")
        match self.config.model_type:
            case "whisper":
                return whisper_log_mel(
                    waveforms,
                    lengths,
                    num_mel_bins=self.config.num_mel_bins,
                    num_frames=2 * self.config.max_source_positions,
                )
            case "parakeet_encoder":
                return log_mel(waveforms, lengths, self.log_mel_config)
            case _:
                waveforms = mask_tail(waveforms.float(), lengths)
                return (_normalise(waveforms, lengths) if self.config.do_normalize else waveforms), lengths

    def encode(self, inputs: Tensor, input_lengths: Tensor, *, layers: Sequence[int] = ()) -> EncoderOutput:
        """Frames from what `features` gave, possibly augmented in between.

        Args:
            inputs: (batch, samples) or (batch, frames, bins).
            input_lengths: (batch,).
            layers: 1-based layers whose states are wanted as well. If LayerDrop skips such a layer in training, the
                state that runs past it is given.
        """
        if not set(layers) <= set(range(1, self.num_layers + 1)):
            raise ModelError(f"no layer {list(layers)}: the encoder has layers 1 to {self.num_layers}")
        inputs = inputs.to(next(self.model.parameters()).dtype)
        with _record_states(self._layers if layers else []) as states:
            match self.config.model_type:
                case "whisper":
                    frames = self.model(inputs.transpose(1, 2)).last_hidden_state
                case "parakeet_encoder":
                    mask = valid_mask(input_lengths, inputs.shape[1])
                    frames = self.model(mask_tail(inputs, input_lengths), attention_mask=mask).last_hidden_state
                case _:
                    frames = self._encode_waveforms(inputs, input_lengths)
        lengths = self._subsampled(input_lengths)
        wanted = [frames, *(_state_after(layer, states, frames) for layer in layers)]
        cut = [mask_tail(state[:, : int(lengths.max())], lengths) for state in wanted]
        window = frames if self.config.model_type == "whisper" else None
        return EncoderOutput(frames=cut[0], lengths=lengths, intermediate=tuple(cut[1:]), window=window)

    def forward(self, waveforms: Tensor, lengths: Tensor, *, layers: Sequence[int] = ()) -> EncoderOutput:
        """Frames of right-padded float32 waveforms (batch, samples) with lengths (batch,); see `encode`."""
        return self.encode(*self.features(waveforms, lengths), layers=layers)

    def train(self, mode: bool = True) -> Self:
        """As in torch, but what is frozen does not drift.

        A wholly frozen encoder stays in evaluation mode, a frozen batch norm within one that learns (LoRA) does too.
        """
        super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))
        for part in self.modules():
            if isinstance(part, nn.BatchNorm1d) and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    @property
    def _layers(self) -> list[nn.Module]:
        return list(self.model.encoder.layers if self.takes_waveform else self.model.layers)

    @property
    def _convolutions(self) -> list[tuple[int, int, int]]:
        """(kernel, stride, padding on either side) of the strided front end."""
        config = self.config
        match config.model_type:
            case "whisper":
                return [(3, 1, 1), (3, 2, 1)]
            case "parakeet_encoder":
                kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
                return [(kernel, stride, (kernel - 1) // 2)] * (config.subsampling_factor.bit_length() - 1)
            case _:
                return [(*sizes, 0) for sizes in zip(config.conv_kernel, config.conv_stride, strict=True)]

    @property
    def _min_inputs(self) -> int:
        """Fewest inputs that the front end makes a frame of."""
        size = 1
        for kernel, stride, padding in reversed(self._convolutions):
            size = max((size - 1) * stride + kernel - 2 * padding, 1)
        return size

    def _subsampled(self, input_lengths: Tensor) -> Tensor:
        lengths = input_lengths.clamp(min=self._min_inputs)
        for kernel, stride, padding in self._convolutions:
            lengths = (lengths + 2 * padding - kernel) // stride + 1
        return lengths

    def _encode_waveforms(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        model, frame_lengths = self.model, self._subsampled(lengths)
        projected = model.feature_projection(self._front_end(waveforms, lengths))
        frames = projected[0] if isinstance(projected, tuple) else projected
        mask = valid_mask(frame_lengths, frames.shape[1])
        if self.training and frames.shape[1] >= model.config.mask_time_length:  # transformers refuses shorter batches
            frames = model._mask_hidden_states(frames, attention_mask=mask.long())
        # transformers' WavLM hands torch two types of mask, which torch deprecates
        quiet = warnings.catch_warnings(action="ignore") if self.config.model_type == "wavlm" else nullcontext()
        with _masked_batch_norm(model.encoder.pos_conv_embed, frame_lengths), quiet:
            return cast(Tensor, model.encoder(frames, attention_mask=mask).last_hidden_state)

    def _front_end(self, waveforms: Tensor, lengths: Tensor) -> Tensor:
        """Convolutions over the waveform: (batch, frames, channels)."""
        extractor, min_inputs = self.model.feature_extractor, self._min_inputs
        waveforms = mask_tail(nn.functional.pad(waveforms, (0, max(0, min_inputs - waveforms.shape[1]))), lengths)
        sizes = lengths.clamp(min=min_inputs).tolist()
        if self.config.feat_extract_norm == "group":  # looks at all samples of a row, so one utterance at a time
            rows = [extractor(row[None, :size])[0].mT for row, size in zip(waveforms, sizes, strict=True)]
            return nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return cast(Tensor, extractor(waveforms[:, : max(sizes)]).mT)


def freeze(encoder: SpeechEncoder, plan: FreezePlan) -> None:
    """Set which weights learn: all of them, all but the convolutional front end, or none.

    A frozen front end adds nothing to the autograd graph. Whisper's sinusoidal positions are never trained.
    """
    encoder.requires_grad_(plan != "all")
    if encoder.config.model_type == "whisper":
        encoder.model.embed_positions.requires_grad_(False)
    if plan == "conv_front_end":
        for name in CONV_FRONT_ENDS.get(encoder.config.model_type, ("feature_extractor",)):
            encoder.model.get_submodule(name).requires_grad_(False)
    encoder.train(encoder.training)


def _initialise_subsampling(subsampling: Any) -> None:
    # transformers draws these with a standard deviation of 0.02 whatever their fan-in. The signal then comes out a
    # million times smaller, below the epsilon of the first layer norm: training from scratch stays blind to speech.
    for module in subsampling.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()


def _encoder_config(config: PreTrainedConfig, *, where: object = None) -> Any:
    """A copy of the encoder's own configuration."""
    own: Any = config.encoder_config if config.model_type in WRAPPING_TYPES else config
    if own.model_type not in MODEL_CLASSES:
        what = f"model type {own.model_type!r} is no supported speech encoder"
        raise ModelError(what, where=where, remedy=f"use one of {', '.join([*MODEL_CLASSES, *WRAPPING_TYPES])}")
    if getattr(own, "add_adapter", False):
        raise ModelError("encoders with add_adapter are not supported", where=where, remedy="leave it to the bridge")
    return copy.deepcopy(own)


def _normalise(waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Zero mean and unit variance over the valid samples; zeros behind them."""
    counts = lengths.clamp(min=1)[:, None]
    centred = mask_tail(waveforms - waveforms.sum(dim=1, keepdim=True) / counts, lengths)
    variance = centred.square().sum(dim=1, keepdim=True) / counts
    return centred / (variance + VARIANCE_FLOOR).sqrt()


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


def _mask_keys_only(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Let padding attend to the utterance: a row that attends to nothing is NaN in some releases of transformers."""
    mask = kwargs.get("attention_mask")
    return args, kwargs if mask is None else {**kwargs, "attention_mask": mask.any(dim=-2, keepdim=True)}


@contextmanager
def _masked_batch_norm(positions: nn.Module, lengths: Tensor) -> Iterator[None]:
    """Keep padding zero between the batch norm and the positional convolution of some HuBERT models (mHuBERT)."""

    def mask(_: nn.Module, __: tuple[Any, ...], output: Tensor) -> Tensor:
        return mask_tail(output.mT, lengths).mT

    batch_norm = getattr(positions, "batch_norm", None) or nn.Identity()
    handle = batch_norm.register_forward_hook(mask)
    try:
        yield
    finally:
        handle.remove()


def _read_preprocessor(path_or_id: str | Path, revision: str | None, config: Any) -> None:
    """Take `do_normalize` from the checkpoint's feature extractor, and refuse features other than ours."""
    settings: dict[str, Any] = {}
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = cached_file(path_or_id, name, revision=revision, _raise_exceptions_for_missing_entries=False)
        if file:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
            settings |= content.get("feature_extractor", content)
    expected: dict[str, float] = {"sampling_rate": SAMPLE_RATE}
    if config.model_type in WAVEFORM_TYPES and "do_normalize" in settings:
        config.do_normalize = bool(settings["do_normalize"])
    if config.model_type == "parakeet_encoder":
        expected |= {"feature_size": config.num_mel_bins, **PARAKEET_FEATURES}
    for name, value in expected.items():
        if settings.get(name, value) != value:
            what = f"features with {name} = {settings[name]} are not supported"
            raise ModelError(what, where=path_or_id, remedy=f"use a checkpoint with {name} = {value}")
