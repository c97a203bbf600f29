"""HuBERT, wav2vec 2.0 and their kin (WavLM, UniSpeech, data2vec, Conformers), which read the waveform."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, cast

from torch import Tensor, nn

from kikitori.model.encoder.family import Convolution, min_features, subsampled
from kikitori.model.features import mask_tail, valid_mask

VARIANCE_FLOOR = 1e-7  # of the waveform normalisation, as in transformers
GROUP_NORM = "group"  # looks at all samples of a row
LAYER_NORM = "layer"


class WaveformFamily:
    """The family of HuBERT; the extra entry `do_normalize` of its configuration is that of its feature extractor."""

    front_end: tuple[str, ...] = ("feature_extractor",)
    final_norm: tuple[str, ...] = ()
    takes_waveform = True

    @property
    def split(self) -> None:
        """Its encoder runs as a whole."""

    def prepare(self, model: Any) -> None:
        """Decide about the normalisation where the configuration does not say: layer-norm front ends want it."""
        if not hasattr(model.config, "do_normalize"):
            model.config.do_normalize = _front_end_norm(model.config) == LAYER_NORM
        # Else training computes gradients for the waveform, which only re-entrant checkpointing needs.
        model.get_submodule("feature_extractor")._requires_grad = False

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Transformer's."""
        return cast(Sequence[nn.Module], model.encoder.layers)

    def convolutions(self, config: Any) -> list[Convolution]:
        """Of the feature extractor, without padding."""
        return [(kernel, stride, 0) for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True)]

    def max_samples(self, config: Any) -> int | None:  # noqa: ARG002
        """There is no limit."""
        return None

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:  # noqa: ARG002
        """The samples themselves."""
        return num_samples

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The waveforms, each with zero mean and unit variance if the checkpoint wants it."""
        waveforms = mask_tail(waveforms.float(), lengths)
        return (normalise(waveforms, lengths) if config.do_normalize else waveforms), lengths

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Front end, masking of hidden frames in training, Transformer."""
        convolutions = self.convolutions(model.config)
        features = _front_end(model, inputs, lengths, min_features(convolutions))
        return contextualise(model, features, subsampled(convolutions, lengths))


def contextualise(model: Any, features: Tensor, lengths: Tensor) -> Tensor:
    """The encoder of a model of wav2vec 2.0's layout over its front end's features (batch, frames, channels)."""
    projected = model.feature_projection(features)
    frames = projected[0] if isinstance(projected, tuple) else projected
    mask = valid_mask(lengths, frames.shape[1])
    if model.training and frames.shape[1] >= model.config.mask_time_length:  # transformers refuses shorter batches
        frames = model._mask_hidden_states(frames, attention_mask=mask.long())
    # transformers' WavLM hands torch two types of mask, which torch deprecates
    quiet = warnings.catch_warnings(action="ignore") if model.config.model_type == "wavlm" else nullcontext()
    with _masked_convolutions(model.encoder, lengths), quiet:
        return cast(Tensor, model.encoder(frames, attention_mask=mask).last_hidden_state)


def _front_end(model: Any, waveforms: Tensor, lengths: Tensor, min_samples: int) -> Tensor:
    """Convolutions over the waveform: (batch, frames, channels)."""
    extractor = model.feature_extractor
    waveforms = mask_tail(nn.functional.pad(waveforms, (0, max(0, min_samples - waveforms.shape[1]))), lengths)
    sizes = lengths.clamp(min=min_samples).tolist()
    if _front_end_norm(model.config) == GROUP_NORM:  # so one utterance at a time
        rows = [extractor(row[None, :size])[0].mT for row, size in zip(waveforms, sizes, strict=True)]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return cast(Tensor, extractor(waveforms[:, : max(sizes)]).mT)


def _front_end_norm(config: Any) -> str:
    """The kind of normalisation between the convolutions; data2vec has layer norms and does not say so."""
    return str(getattr(config, "feat_extract_norm", LAYER_NORM))


def normalise(waveforms: Tensor, lengths: Tensor, floor: float = VARIANCE_FLOOR) -> Tensor:
    """Zero mean and unit variance over the valid samples; zeros behind them."""
    counts = lengths.clamp(min=1)[:, None]
    centred = mask_tail(waveforms - waveforms.sum(dim=1, keepdim=True) / counts, lengths)
    variance = centred.square().sum(dim=1, keepdim=True) / counts
    return centred / (variance + floor).sqrt()


@contextmanager
def _masked_convolutions(encoder: nn.Module, lengths: Tensor) -> Iterator[None]:
    """Keep padding zero before each convolution that reads frames ahead: norms and activations make it something else.

    These are the positional convolutions (several in data2vec, one behind a batch norm in mHuBERT) and those of
    Conformer layers, but of causal ones.
    """

    def mask(_: nn.Module, inputs: tuple[Any, ...]) -> Tensor:
        return mask_tail(inputs[0].mT, lengths).mT

    wide = [each for each in encoder.modules() if isinstance(each, nn.Conv1d) and each.padding[0]]
    handles = [each.register_forward_pre_hook(mask) for each in wide]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
