"""A speech encoder with CTC heads over label units, and perhaps over phones: all that recognition knows of it.

Phone heads write words by a pronunciation lexicon (see `kikitori.search.lexicon.search`). Where speech is scarce,
phones are learnt and the spelling is looked up.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kikitori.model.encoder import EncoderOutput, SpeechEncoder
from kikitori.model.heads import CTCHead

FORMAT_VERSION = 1
"""Of our model folders. A change that an older kikitori would misread raises it."""


@dataclass(frozen=True)
class HeadConfig:
    """What there is of an acoustic model's heads; `AcousticModelConfig` has the same entries.

    Attributes:
        encoder_config: Configuration of the speech encoder (any family of `kikitori.model.encoder`).
        ctc_layers: 1-based encoder layers that carry a CTC head; the last one named is the one that decodes.
        num_units: Number of label units; every head has one more output, the blank.
        phones: What the phone heads write, in the order of their outputs; a blank follows. Empty without such heads.
        phone_layers: 1-based encoder layers that carry a phone head; the last one named is the one that decodes.
        phone_upsample: Outputs of a phone head per frame.
    """

    encoder_config: Any
    ctc_layers: Sequence[int] = ()
    num_units: int = 0
    phones: Sequence[str] = ()
    phone_layers: Sequence[int] = ()
    phone_upsample: int = 1


class AcousticNetwork(nn.Module):
    """Speech encoder + CTC heads: waveforms in, log-probabilities of label units per frame out.

    Args:
        config: A `HeadConfig`, or what has the same entries.
        encoder: The speech encoder.
    """

    encoder: SpeechEncoder
    ctc_heads: nn.ModuleDict
    phone_heads: nn.ModuleDict
    decoder_name: ClassVar[None] = None

    def __init__(self, config: Any, encoder: SpeechEncoder) -> None:
        super().__init__()
        self.config = config
        self.add_parts(encoder)

    def add_parts(self, encoder: SpeechEncoder) -> None:
        """The encoder and fresh heads."""
        self.encoder, config = encoder, self.config
        self.ctc_heads = nn.ModuleDict(
            {str(layer): CTCHead(encoder.dim, config.num_units) for layer in config.ctc_layers}
        )
        self.phone_heads = nn.ModuleDict(
            {
                str(layer): CTCHead(encoder.dim, len(config.phones), config.phone_upsample)
                for layer in config.phone_layers
            }
        )

    @property
    def acoustic(self) -> "AcousticNetwork":
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

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(self.parameters()).device

    def forward(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Right-padded 16 kHz waveforms (batch, samples) to the last head's log-probabilities and lengths."""
        return self.log_probs(self.encode(waveforms, lengths))
