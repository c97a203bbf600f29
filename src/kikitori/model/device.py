"""Where networks compute."""

import os
from typing import Literal

import torch

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
