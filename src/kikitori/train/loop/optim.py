"""AdamW with decay exclusions, and learning-rate schedules over the fraction of the training done."""

import math
from bisect import bisect_right
from collections.abc import Callable

from torch import nn
from torch.optim import AdamW

from kikitori.train.recipe.optim import Cosine, Optim, Piecewise

BETAS = (0.9, 0.98)
EPS = 1e-8


def build_optimizer(module: nn.Module, settings: Optim, lr_factor: Callable[[str], float]) -> AdamW:
    """AdamW over the trainable parameters; biases (2-D ones too), norms and embeddings do not decay."""
    embeddings = {
        id(parameter)
        for part in module.modules()
        if isinstance(part, nn.Embedding)
        for parameter in part.parameters(recurse=False)
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_bias = "bias" in name.rpartition(".")[2]  # Parakeet's bias_u and bias_v have two dimensions
            decays = parameter.ndim >= 2 and not is_bias and id(parameter) not in embeddings
            key = (lr_factor(name), settings.weight_decay if decays else 0.0)
            groups.setdefault(key, []).append(parameter)
    return AdamW(
        [
            {"params": parameters, "lr": settings.lr * factor, "base_lr": settings.lr * factor, "weight_decay": decay}
            for (factor, decay), parameters in groups.items()
        ],
        lr=settings.lr,
        betas=BETAS,
        eps=EPS,
        fused=True,
    )


def lr_scale(schedule: Cosine | Piecewise, progress: float) -> float:
    """Factor on the learning rate when the fraction `progress` (0 to 1) of the training is done."""
    match schedule:
        case Cosine():
            if progress < schedule.warmup:
                # Not zero at the very start: the first step should already move.
                return max(progress / schedule.warmup, 1e-3)
            rest = (progress - schedule.warmup) / max(1.0 - schedule.warmup, 1e-9)
            return schedule.final + (1.0 - schedule.final) * 0.5 * (1.0 + math.cos(math.pi * min(rest, 1.0)))
        case Piecewise():
            starts = [fraction for fraction, _ in schedule.points]
            index = min(bisect_right(starts, progress), len(starts) - 1)
            (x0, y0), (x1, y1) = schedule.points[index - 1], schedule.points[index]
            return y0 + (y1 - y0) * (min(progress, 1.0) - x0) / (x1 - x0) if x1 > x0 else y1


def set_lr(optimizer: AdamW, scale: float) -> None:
    """Scales every group's learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * scale
