"""Linear layers in 8-bit integers, as CTranslate2's `int8` has them, for networks on a CPU.

y = W x + b: each row of W and each input x has a scale of its own, the largest of its absolute values / 127. Inputs are
rounded as they come, so that an output depends on its own input alone and not on what else is in the batch. Sums are
exact, in 32 bits; what is between the layers stays in float32.
"""

from functools import cache

import torch
from torch import Tensor, nn

from kikitori.errors import ConfigError

LEVELS = 127
"""Of either sign: -127 to 127."""
ZERO = 128
"""Inputs are stored without sign, this being 0."""
LEAST_SIZE = 64
"""Smaller matrices gain nothing."""


class Int8Linear(nn.Module):
    """A linear layer for inference, without gradients.

    Args:
        layer: What it computes, up to rounding; its weights are copied.
    """

    packed: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        weight = layer.weight.detach().float()
        scales = _largest(weight) / LEVELS
        rounded = (weight / scales).round().to(torch.int8)
        self.register_buffer("scales", scales[:, 0])
        self.register_buffer("zeros", torch.zeros(len(rounded), dtype=torch.int32))
        self.register_buffer("packed", torch.ops.onednn.qlinear_prepack(rounded, None))
        self.bias = layer.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs (..., out_features) of inputs (..., in_features), both float32."""
        rows = inputs.reshape(-1, self.in_features)
        largest = _largest(rows)
        signed = torch.mul(rows, LEVELS / largest).round_().to(torch.int8)
        # Its top bit turned, a signed number is one without sign that is greater by ZERO.
        products = _products(signed.view(torch.uint8).bitwise_xor_(ZERO), self.packed, self.scales, self.zeros)
        outputs = products.mul_(largest) if self.bias is None else torch.addcmul(self.bias, products, largest)
        return outputs.reshape(*inputs.shape[:-1], self.out_features)


def to_int8(network: nn.Module) -> None:
    """Puts the linear layers within a network into 8 bits; what is too small for a gain stays as it is.

    Raises:
        ConfigError: The processor cannot add such products without loss.
    """
    check_int8()
    for module in [*network.modules()]:
        for name, layer in [*module.named_children()]:
            if type(layer) is nn.Linear and min(layer.weight.shape) >= LEAST_SIZE:
                setattr(module, name, Int8Linear(layer))


def check_int8() -> None:
    """Refuses int8 where sums of products are not exact: processors without VNNI add pairs in 16 bits, too few.

    Raises:
        ConfigError: With the remedy.
    """
    if not is_exact():
        raise ConfigError("this processor, or this torch, adds 8-bit products with loss", remedy="use float32")


@cache
def is_exact() -> bool:
    """Whether the largest products have the right sum."""
    size = 64
    largest, weights = torch.full((2, size), 255, dtype=torch.uint8), torch.full((size, size), LEVELS, dtype=torch.int8)
    ones, zeros = torch.ones(size), torch.zeros(size, dtype=torch.int32)
    try:
        packed = torch.ops.onednn.qlinear_prepack(weights, None)
        found = _products(largest, packed, ones, zeros)
    except (AttributeError, RuntimeError):
        return False
    return bool(((found * LEVELS).round() == size * (255 - ZERO) * LEVELS).all())


def _products(rounded: Tensor, packed: Tensor, scales: Tensor, zeros: Tensor) -> Tensor:
    """Rounded inputs (n, in_features) without sign, as numbers between -1 and 1, times weights: (n, out_features)."""
    product = torch.ops.onednn.qlinear_pointwise
    found: Tensor = product(
        rounded, 1 / LEVELS, ZERO, packed, scales, zeros, None, 1.0, 0, torch.float32, "none", [], "none"
    )
    return found


def _largest(rows: Tensor) -> Tensor:
    """The largest absolute value of each row (n, size), as (n, 1); a row of zeros has a tiny one."""
    return torch.maximum(rows.amax(dim=1, keepdim=True), -rows.amin(dim=1, keepdim=True)).clamp_min_(1e-20)
