"""What an LLM layer keeps of the speech where the interface is no prefix: keys and values of its own."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedConfig

GATE_SPEED = 10.0  # AdamW moves a parameter by about one learning rate a step; a gate has further to go than a weight


@dataclass(frozen=True)
class Heads:
    """Attention heads of the LLM, which those of the interface copy."""

    queries: int
    keys: int  # fewer than queries with grouped-query attention
    dim: int

    @staticmethod
    def of(config: PreTrainedConfig) -> "Heads":
        """Those of an LLM."""
        queries = int(config.num_attention_heads)
        keys = getattr(config, "num_key_value_heads", None) or queries
        return Heads(queries, int(keys), int(getattr(config, "head_dim", None) or config.hidden_size // queries))


class SpeechLayer(nn.Module):
    """What an LLM layer knows of the speech: its own projections to keys and values."""

    def __init__(self, dim: int, heads: Heads, *, key_bias: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.keys = nn.Linear(dim, heads.keys * heads.dim, bias=key_bias)
        self.values = nn.Linear(dim, heads.keys * heads.dim, bias=False)

    def forward(self, speech_embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (batch, heads, positions, head_dim) of the speech (batch, positions, dim)."""
        return split_heads(self.keys(speech_embeds), self.heads.dim), split_heads(
            self.values(speech_embeds), self.heads.dim
        )


def split_heads(states: Tensor, head_dim: int) -> Tensor:
    """(batch, n, heads * head_dim) to (batch, heads, n, head_dim)."""
    return states.reshape(*states.shape[:-1], -1, head_dim).transpose(1, 2)
