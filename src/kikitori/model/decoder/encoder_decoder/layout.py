"""How the decoder half of an encoder-decoder is put together in transformers, where its families differ.

Each family has layers of self-attention, cross-attention and a feed-forward network, each behind a layer norm. They
differ in what these are called, in where a label's position comes in, and in whether frames are projected before they
are read.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from torch import Tensor, nn

from kikitori.errors import ModelError

Turn = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Queries and keys (rows, heads, n, head_dim) of some labels, with their positions in them."""
Part = Callable[[Any], nn.Module]


@dataclass(frozen=True)
class DecoderLayout:
    """The parts of a decoder.

    Attributes:
        embed: From network, labels (rows, n) and their positions (rows, n) to the first states (rows, n, dim).
        rotation: From network, first states and positions to what self-attention does to queries and keys.
        read: From network and the encoder's frames to what cross-attention reads.
        own_norm: The norm of a layer before self-attention.
        cross_norm: That before cross-attention.
        out: The output matrix of an attention.
        feed_forward: What a layer's feed-forward network adds to states (rows, n, dim), its norm included.
        final_norm: The norm of the network behind the last layer.
    """

    embed: Callable[[Any, Tensor, Tensor], Tensor]
    rotation: Callable[[Any, Tensor, Tensor], Turn]
    read: Callable[[Any, Tensor], Tensor]
    own_norm: Part
    cross_norm: Part
    out: Part
    feed_forward: Callable[[Any, Tensor], Tensor]
    final_norm: Part


def _as_it_is(_: Any, frames: Tensor) -> Tensor:
    return frames


def _no_rotation(_: Any, __: Tensor, ___: Tensor) -> Turn:
    return lambda queries, keys: (queries, keys)


def _table(network: Any, labels: Tensor, positions: Tensor) -> Tensor:
    embedded: Tensor = network.embed_tokens(labels) * network.embed_scale
    placed: Tensor = embedded + network.embed_positions.weight[positions]
    return placed


def _sinusoids(network: Any, labels: Tensor, positions: Tensor) -> Tensor:
    """As fairseq counts positions: from behind the label for padding, which has none wherever it stands."""
    padding = int(network.padding_idx)
    rows = (positions + padding + 1).masked_fill(labels == padding, padding)
    embedded: Tensor = network.embed_tokens(labels) * network.embed_scale + network.embed_positions.weights[rows]
    return embedded


def _two_matrices(layer: Any, states: Tensor) -> Tensor:
    found: Tensor = layer.fc2(layer.activation_fn(layer.fc1(layer.final_layer_norm(states))))
    return found


def _normed(network: Any, labels: Tensor, positions: Tensor) -> Tensor:
    embedded: Tensor = network.embedding_layernorm(network.embed_tokens(labels) + network.pos_emb(positions))
    return embedded


def _projected(network: Any, frames: Tensor) -> Tensor:
    projected: Tensor = network.proj(frames)
    return projected


def _placed(network: Any, frames: Tensor) -> Tensor:
    most = int(network.pos_emb.num_embeddings)
    if frames.shape[1] > most:
        what = f"the decoder has positions for {most} frames, the utterance has {frames.shape[1]}"
        raise ModelError(what, remedy="split the recording")
    projected: Tensor = network.proj(frames + network.pos_emb.weight[: frames.shape[1]])
    return projected


def _labels_alone(network: Any, labels: Tensor, positions: Tensor) -> Tensor:  # noqa: ARG001
    embedded: Tensor = network.embed_tokens(labels)
    return embedded


def _rotary(network: Any, states: Tensor, positions: Tensor) -> Turn:
    """Rotary positions, pairs of neighbours in the first part of each head (Su et al. 2021)."""
    from transformers.models.moonshine.modeling_moonshine import apply_rotary_pos_emb

    cosines, sines = network.rotary_emb(states, position_ids=positions)
    return lambda queries, keys: apply_rotary_pos_emb(queries, keys, cosines, sines)


def _module(layer: Any, states: Tensor) -> Tensor:
    found: Tensor = layer.mlp(layer.final_layernorm(states))
    return found


WHISPER = DecoderLayout(
    embed=_table,
    rotation=_no_rotation,
    read=_as_it_is,
    own_norm=attrgetter("self_attn_layer_norm"),
    cross_norm=attrgetter("encoder_attn_layer_norm"),
    out=attrgetter("out_proj"),
    feed_forward=_two_matrices,
    final_norm=attrgetter("layer_norm"),
)
SPEECH_TO_TEXT = replace(WHISPER, embed=_sinusoids)
MOONSHINE = DecoderLayout(
    embed=_labels_alone,
    rotation=_rotary,
    read=_as_it_is,
    own_norm=attrgetter("input_layernorm"),
    cross_norm=attrgetter("post_attention_layernorm"),
    out=attrgetter("o_proj"),
    feed_forward=_module,
    final_norm=attrgetter("norm"),
)
MOONSHINE_STREAMING = replace(MOONSHINE, read=_placed)
CANARY = replace(MOONSHINE, embed=_normed, rotation=_no_rotation)
COHERE = replace(CANARY, read=_projected)
