"""Where networks compute, and how their numbers lie there."""

import os
from typing import Literal

import torch
from torch import nn

from kikitori.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]


def torch_device(device: Device) -> str:
    """Where to compute, as torch names it; each process of torchrun has a GPU of its own.

    Raises:
        ModelError: There is no GPU, and one is asked for.
    """
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if not torch.cuda.is_available():
        raise ModelError("torch sees no GPU", where="--device cuda", remedy="use --device cpu")
    rank = os.environ.get("LOCAL_RANK")
    return "cuda" if rank is None else f"cuda:{rank}"


def lay_by_columns(network: nn.Module) -> None:
    """Lays the matrices of linear layers in memory column by column, as a decoder is fastest on a CPU.

    Shapes and values stay. A decoder multiplies its matrices by a few rows at a time, hypotheses or utterances; with 8
    rows and Whisper's sizes that takes half the time (MKL), with one or a thousand the same.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.data = layer.weight.data.t().contiguous().t()
