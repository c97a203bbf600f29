"""FastConformer, the encoder of Parakeet, which reads log-mel features."""

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from kikitori.model.encoder.family import Convolution
from kikitori.model.features import LogMelConfig, log_mel, mask_tail, valid_mask


class FastConformerFamily:
    """The family of Parakeet's encoder; the extra entry `dither` of its configuration is that of its features."""

    front_end: tuple[str, ...] = ("subsampling",)
    final_norm: tuple[str, ...] = ()
    takes_waveform = False

    @property
    def split(self) -> None:
        """Its encoder runs as a whole."""

    def prepare(self, model: Any) -> None:
        """Let padding attend to the utterance."""
        for layer in self.layers(model):
            layer.get_submodule("self_attn").register_forward_pre_hook(_mask_keys_only, with_kwargs=True)

    def layers(self, model: Any) -> Sequence[nn.Module]:
        """The Conformer's."""
        return cast(Sequence[nn.Module], model.layers)

    def convolutions(self, config: Any) -> list[Convolution]:
        """One for each factor of 2."""
        kernel, stride = config.subsampling_conv_kernel_size, config.subsampling_conv_stride
        return [(kernel, stride, (kernel - 1) // 2)] * (config.subsampling_factor.bit_length() - 1)

    def max_samples(self, config: Any) -> int | None:  # noqa: ARG002
        """There is no limit."""
        return None

    def num_features(self, config: Any, num_samples: Tensor) -> Tensor:
        """Log-mel frames."""
        return _log_mel_config(config).num_frames(num_samples)

    def features(self, config: Any, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Log-mel features, normalised over each utterance."""
        return log_mel(waveforms, lengths, _log_mel_config(config))

    def frames(self, model: Any, inputs: Tensor, lengths: Tensor) -> Tensor:
        """Subsampling and Conformer, with the padding masked."""
        mask = valid_mask(lengths, inputs.shape[1])
        return cast(Tensor, model(mask_tail(inputs, lengths), attention_mask=mask).last_hidden_state)


def initialise_subsampling(model: Any) -> None:
    """Draw the weights of the front end anew.

    transformers draws these with a standard deviation of 0.02 whatever their fan-in. The signal then comes out a
    million times smaller, below the epsilon of the first layer norm: training from scratch stays blind to speech.
    """
    for module in model.subsampling.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.reset_parameters()


def _log_mel_config(config: Any) -> LogMelConfig:
    return LogMelConfig(num_mel_bins=config.num_mel_bins, dither=getattr(config, "dither", 0.0))


def _mask_keys_only(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Let padding attend to the utterance: a row that attends to nothing is NaN in some releases of transformers."""
    mask = kwargs.get("attention_mask")
    return args, kwargs if mask is None else {**kwargs, "attention_mask": mask.any(dim=-2, keepdim=True)}
