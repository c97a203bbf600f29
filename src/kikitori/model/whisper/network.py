"""Whisper's encoder and decoder (Radford et al. 2022) without anything that only training needs.

The loops over the layers stand where they are used: `kikitori.model.encoder.families.whisper` runs the encoder's,
`kikitori.model.decoder.encoder_decoder` the decoder's.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, scaled_dot_product_attention

from kikitori.model.whisper.config import WhisperConfig

OUTPUT = "proj_out.weight"


class Attention(nn.Module):
    """The matrices of multi-head attention; Whisper's keys have no bias."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj, self.q_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(3))

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of states (batch, n, dim) to themselves; the mask is added to the scores."""
        # Queries are scaled before they are cut into heads, as in OpenAI's code; the order of roundings counts.
        scaled = self.q_proj(states) * self.head_dim**-0.5
        queries, keys, values = map(self._heads, (scaled, self.k_proj(states), self.v_proj(states)))
        found = scaled_dot_product_attention(queries, keys, values, attn_mask=mask, scale=1.0)
        together: Tensor = self.out_proj(found.transpose(1, 2).flatten(2))
        return together

    def _heads(self, states: Tensor) -> Tensor:
        """(batch, n, dim) as (batch, heads, n, head_dim)."""
        heads: Tensor = states.unflatten(2, (self.num_heads, self.head_dim))  # type: ignore[no-untyped-call]
        return heads.transpose(1, 2).contiguous()


class EncoderLayer(nn.Module):
    """Self-attention and two linear layers, each behind a norm and beside what goes in."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        dim = config.d_model
        self.self_attn = Attention(dim, config.encoder_attention_heads)
        self.self_attn_layer_norm, self.final_layer_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, config.encoder_ffn_dim), nn.Linear(config.encoder_ffn_dim, dim)

    def forward(self, states: Tensor, mask: Tensor | None) -> Tensor:
        """States (batch, n, dim) after the layer."""
        states = states + self.self_attn(self.self_attn_layer_norm(states), mask)
        added: Tensor = self.fc2(gelu(self.fc1(self.final_layer_norm(states))))
        return states + added


class DecoderLayer(nn.Module):
    """The parts of a decoder layer."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        dim = config.d_model
        self.self_attn = Attention(dim, config.decoder_attention_heads)
        self.encoder_attn = Attention(dim, config.decoder_attention_heads)
        self.self_attn_layer_norm, self.encoder_attn_layer_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.final_layer_norm, self.activation_fn = nn.LayerNorm(dim), gelu
        self.fc1, self.fc2 = nn.Linear(dim, config.decoder_ffn_dim), nn.Linear(config.decoder_ffn_dim, dim)


class Table(nn.Embedding):
    """Rows that come from a file; to draw them before, on the `meta` device, torch would import its compiler."""

    def reset_parameters(self) -> None:
        """Leaves them as they are."""


class WhisperEncoder(nn.Module):
    """The encoder's parts; nothing is dropped."""

    dropout = layerdrop = 0.0

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = nn.Conv1d(config.num_mel_bins, config.d_model, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.d_model, config.d_model, kernel_size=3, stride=2, padding=1)
        self.embed_positions = Table(config.max_source_positions, config.d_model)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)


class WhisperDecoder(nn.Module):
    """The decoder's parts."""

    embed_scale = 1.0

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Table(config.vocab_size, config.d_model)
        self.embed_positions = Table(config.max_target_positions, config.d_model)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.layer_norm = nn.LayerNorm(config.d_model)


class WhisperBody(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.encoder, self.decoder = WhisperEncoder(config), WhisperDecoder(config)


class Whisper(nn.Module):
    """Encoder, decoder and output matrix, by the names that transformers gives them."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.model = WhisperBody(config)
        self.proj_out = nn.Linear(config.d_model, config.vocab_size, bias=False)

    def get_output_embeddings(self) -> nn.Linear:
        """The output matrix."""
        return self.proj_out

    def load(self, tensors: Mapping[str, Tensor]) -> list[str]:
        """Takes tensors as they are; an output matrix that is the embeddings' stays one with it.

        Returns:
            The names of tensors that are missing.

        Raises:
            RuntimeError: A tensor has another shape.
        """
        missing = self.load_state_dict(tensors, strict=False, assign=True).missing_keys
        if self.config.tie_word_embeddings or OUTPUT in missing:
            self.proj_out.weight = self.model.decoder.embed_tokens.weight
        return [name for name in missing if name != OUTPUT]


def whisper_of(config: WhisperConfig, tensors: Mapping[str, Tensor]) -> tuple[Whisper, list[str]]:
    """A Whisper with some tensors, and the names of those that are missing.

    Raises:
        RuntimeError: A tensor has another shape.
    """
    with torch.device("meta"):  # drawing weights that are replaced at once would take as long as reading these
        network = Whisper(config)
    return network, network.load(tensors)
