"""Where networks compute."""

from typing import Literal

import torch

from kikitori.errors import ModelError

Device = Literal["auto", "cpu", "cuda"]


def torch_device(device: Device) -> str:
    """Where to compute, as torch names it.

    Raises:
        ModelError: There is no GPU, and one is asked for.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("torch sees no GPU", where="--device cuda", remedy="use --device cpu")
    return device
