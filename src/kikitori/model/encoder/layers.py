"""Which layers of an encoder learn, and which it shares with another one."""

from typing import Literal

import torch

from kikitori.model.encoder.speech_encoder import SpeechEncoder

FreezePlan = Literal["none", "conv_front_end", "all"]


def share_layers(encoder: SpeechEncoder, other: SpeechEncoder, num_layers: int) -> None:
    """Give an encoder the front end and the first layers of another one, in place of its own equal ones."""
    ours, theirs = encoder.model, other.model
    for name in (*encoder.family.front_end, "embed_positions"):
        setattr(ours, name, theirs.get_submodule(name))
    for index in range(num_layers):
        ours.layers[index] = theirs.layers[index]


def equal_encoders(encoder: SpeechEncoder, other: SpeechEncoder) -> bool:
    """Whether two encoders of one kind have the same weights."""
    theirs = other.model.state_dict()
    return all(torch.equal(weights, theirs[name]) for name, weights in encoder.model.state_dict().items())


def freeze_below(encoder: SpeechEncoder, num_layers: int) -> None:
    """Let the last layers and the normalisation behind them learn; the first `num_layers` add nothing to the graph."""
    encoder.requires_grad_(False)
    for layer in encoder.layers[num_layers:]:
        layer.requires_grad_(True)
    for name in encoder.family.final_norm:
        encoder.model.get_submodule(name).requires_grad_(True)
    encoder.train(encoder.training)


def freeze(encoder: SpeechEncoder, plan: FreezePlan) -> None:
    """Set which weights learn: all of them, all but the convolutional front end, or none.

    A frozen front end adds nothing to the autograd graph. Whisper's sinusoidal positions are never trained.
    """
    encoder.requires_grad_(plan != "all")
    if encoder.family.split is not None:
        encoder.model.embed_positions.requires_grad_(False)
    if plan == "conv_front_end":
        for name in encoder.family.front_end:
            encoder.model.get_submodule(name).requires_grad_(False)
    encoder.train(encoder.training)
