"""The CTC acoustic model: a speech encoder with CTC heads, alone or as the first half of a speech LLM.

Beside the heads over label units there may be heads over phones, with which a pronunciation lexicon writes words (see
`kikitori.search.lexicon.search`). Where speech is scarce, phones are learnt and the spelling is looked up.
"""

from typing import Any, ClassVar, TypeVar

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from kikitori.model.encoder import EncoderOutput, SpeechEncoder
from kikitori.model.heads import CTCHead

M = TypeVar("M", bound=nn.Module)

FORMAT_VERSION = 1
"""Of our model folders. A change that an older kikitori would misread raises it."""


class AcousticModelConfig(PreTrainedConfig):
    """Configuration of an `AcousticModel`.

    Args:
        encoder_config: Configuration of the speech encoder (any family of `kikitori.model.encoder`).
        ctc_layers: 1-based encoder layers that carry a CTC head; the last one named is the one that decodes.
        num_units: Number of label units; every head has one more output, the blank.
        phones: What the phone heads write, in the order of their outputs; a blank follows. Empty without such heads.
        phone_layers: 1-based encoder layers that carry a phone head; the last one named is the one that decodes.
        phone_upsample: Outputs of a phone head per frame.
        format_version: Version of the folder's format (see `FORMAT_VERSION`).
    """

    model_type = "kikitori_acoustic_model"
    sub_configs: ClassVar[dict[str, Any]] = {"encoder_config": AutoConfig}

    def __init__(
        self,
        encoder_config: PreTrainedConfig | dict[str, Any] | None = None,
        ctc_layers: tuple[int, ...] | list[int] = (),
        num_units: int = 0,
        phones: tuple[str, ...] | list[str] = (),
        phone_layers: tuple[int, ...] | list[int] = (),
        phone_upsample: int = 1,
        format_version: int = FORMAT_VERSION,
        **kwargs: Any,
    ) -> None:
        # Before the nested configuration is in place: transformers resets the attention of every nested one here, and
        # a live encoder that shares it would go on without its padding mask.
        super().__init__(**kwargs)
        self.encoder_config: Any = as_config(encoder_config)
        self.ctc_layers = list(ctc_layers)
        self.num_units = num_units
        self.phones = list(phones)
        self.phone_layers = list(phone_layers)
        self.phone_upsample = phone_upsample
        self.format_version = format_version

    @property
    def num_phone_outputs(self) -> int:
        """What a phone head says of a frame beside blanks: its phones, as often as it is asked."""
        return self.phone_upsample * len(self.phones)


class AcousticModel(PreTrainedModel):
    """Speech encoder + CTC heads: waveforms in, log-probabilities of label units per frame out."""

    config: AcousticModelConfig
    config_class = AcousticModelConfig
    decoder_name: ClassVar[None] = None
    main_input_name = "waveforms"
    _supports_sdpa = True

    def __init__(self, config: AcousticModelConfig, *, encoder: SpeechEncoder | None = None) -> None:
        super().__init__(config)
        self.encoder = SpeechEncoder(config.encoder_config) if encoder is None else adopted(encoder)
        self.ctc_heads = nn.ModuleDict(
            {str(layer): CTCHead(self.encoder.dim, config.num_units) for layer in config.ctc_layers}
        )
        self.phone_heads = nn.ModuleDict(
            {
                str(layer): CTCHead(self.encoder.dim, len(config.phones), config.phone_upsample)
                for layer in config.phone_layers
            }
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:  # noqa: ARG002
        # The encoder initialises itself; the heads keep torch's own initialisation.
        return

    @property
    def acoustic(self) -> "AcousticModel":
        """The model itself: what every recogniser has."""
        return self

    @property
    def autoregressive(self) -> None:
        """It has no decoder."""

    @property
    def speech_llm(self) -> None:
        """It has no LLM."""

    def encode(self, waveforms: Tensor, num_samples: Tensor) -> EncoderOutput:
        """Encode right-padded 16 kHz waveforms (batch, samples), of `num_samples` (batch,) each."""
        return self.encode_features(*self.encoder.features(waveforms, num_samples))

    def encode_for_heads(self, waveforms: Tensor, num_samples: Tensor) -> EncoderOutput:
        """The same, for CTC and phone heads alone."""
        return self.encode(waveforms, num_samples)

    def encode_features(self, inputs: Tensor, input_lengths: Tensor) -> EncoderOutput:
        """Frames from `encoder.features`, with the states that the CTC heads read as `intermediate`."""
        return self.encoder.encode(inputs, input_lengths, layers=self.layers)

    @property
    def layers(self) -> list[int]:
        """The encoder layers that carry a head, each once."""
        return sorted({*self.config.ctc_layers, *self.config.phone_layers})

    def log_probs(self, encoded: EncoderOutput, layer: int | None = None) -> tuple[Tensor, Tensor]:
        """CTC log-probabilities (batch, frames, labels + 1) and lengths of one head, by default the last."""
        layer = self.config.ctc_layers[-1] if layer is None else layer
        result: tuple[Tensor, Tensor] = self.ctc_heads[str(layer)](self.frames(encoded, layer), encoded.lengths)
        return result

    def phone_log_probs(self, encoded: EncoderOutput, layer: int | None = None) -> tuple[Tensor, Tensor]:
        """The same of a phone head: (batch, frames * phone_upsample, phones + 1) and lengths."""
        layer = self.config.phone_layers[-1] if layer is None else layer
        result: tuple[Tensor, Tensor] = self.phone_heads[str(layer)](self.frames(encoded, layer), encoded.lengths)
        return result

    def ctc_logits(self, encoded: EncoderOutput) -> tuple[Tensor, Tensor]:
        """The last head's outputs (batch, frames, labels + 1) before they are normalised, and lengths."""
        layer = self.config.ctc_layers[-1]
        head: CTCHead = self.ctc_heads[str(layer)]  # type: ignore[assignment]
        return head.logits(self.frames(encoded, layer), encoded.lengths)

    def frames(self, encoded: EncoderOutput, layer: int) -> Tensor:
        """What the heads of a layer read; those of the last one the finished frames, which a family may normalise."""
        at_end = layer == self.encoder.num_layers
        return encoded.frames if at_end else encoded.intermediate[self.layers.index(layer)]

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Right-padded 16 kHz waveforms (batch, samples) to the last head's log-probabilities and lengths."""
        return self.log_probs(self.encode(waveforms, lengths))


def as_config(config: PreTrainedConfig | dict[str, Any] | None) -> PreTrainedConfig | None:
    """A nested configuration from what config.json holds."""
    if isinstance(config, dict):
        return AutoConfig.for_model(**config)
    return config


def adopted(module: M) -> M:
    """A part that keeps its weights in `post_init`, which would draw anew whatever transformers did not load itself."""
    for part in module.modules():
        part._is_hf_initialized = True  # type: ignore[assignment]
    return module


AutoConfig.register(AcousticModelConfig.model_type, AcousticModelConfig)
AutoModel.register(AcousticModelConfig, AcousticModel)
