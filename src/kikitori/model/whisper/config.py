"""The sizes of a Whisper, as `config.json` of transformers has them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from kikitori.errors import ModelError

GELU = "gelu"


@dataclass
class WhisperConfig:
    """What recognition needs of a Whisper's `config.json`; what is missing there has the values of transformers.

    Attributes:
        window: What is read behind an utterance, see `kikitori.model.encoder.families.whisper`.
        others: All other entries, such as those that training alone reads.
    """

    vocab_size: int = 51865
    num_mel_bins: int = 80
    d_model: int = 384
    encoder_layers: int = 4
    encoder_attention_heads: int = 6
    encoder_ffn_dim: int = 1536
    decoder_layers: int = 4
    decoder_attention_heads: int = 6
    decoder_ffn_dim: int = 1536
    max_source_positions: int = 1500
    max_target_positions: int = 448
    median_filter_width: int = 7
    activation_function: str = GELU
    scale_embedding: bool = False
    tie_word_embeddings: bool = True
    window: str = "padded"
    others: Mapping[str, Any] = field(default_factory=dict)

    model_type = "whisper"

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "WhisperConfig":
        """From the entries of `config.json`.

        Raises:
            ModelError: A size is no number above 0, or the network is not Whisper's.
        """
        known = {each.name: each.type for each in fields(cls) if each.name != "others"}
        own = {name: value for name, value in values.items() if name in known}
        for name, value in own.items():
            if known[name] is int and (type(value) is not int or value < 1):
                raise ModelError(f"config.json has no size as {name} but {value!r}", remedy="copy the folder again")
        config = cls(**own, others={name: value for name, value in values.items() if name not in known})
        if config.activation_function != GELU or config.scale_embedding:
            raise ModelError("its network is not that of Whisper", remedy=f"use one with activation_function {GELU}")
        if config.d_model % config.encoder_attention_heads or config.d_model % config.decoder_attention_heads:
            raise ModelError(f"its heads do not divide {config.d_model}", remedy="copy the folder again")
        return config

    @property
    def hidden_size(self) -> int:
        """Size of a frame."""
        return self.d_model

    def entries(self) -> dict[str, Any]:
        """As in `config.json` of transformers."""
        own = {name: value for name, value in asdict(self).items() if name not in ("others", "window")}
        window = {} if self.window == "padded" else {"window": self.window}
        return {**self.others, **own, "model_type": self.model_type} | window
