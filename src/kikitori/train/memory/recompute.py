"""Gradient checkpointing: activations computed twice instead of kept."""

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial

from torch import nn
from transformers import PreTrainedModel

from kikitori.errors import ConfigError
from kikitori.train.loop.state import copy_into, statistics


def checkpoint_activations(module: nn.Module) -> None:
    """Lets encoder and LLM keep the inputs of their layers alone and compute the rest again for the backward pass.

    Gradients and batch-norm statistics stay the same. Only what trains does it: frozen encoders in evaluation mode keep
    nothing anyway.

    Raises:
        ConfigError: The code of an encoder or an LLM does not know how.
    """
    for part in module.modules():
        # Ours hold others; of an LLM with its body inside, the outer one speaks for both.
        if not isinstance(part, PreTrainedModel) or part.config.model_type.startswith("kikitori_"):
            continue
        if not part.supports_gradient_checkpointing:
            raise ConfigError(
                f"{type(part).__name__} cannot compute activations again",
                where="run.gradient_checkpointing",
                remedy="leave it out",
            )
        how = {"use_reentrant": False, "context_fn": partial(_contexts, part)}
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # it has another name in new releases
            part.gradient_checkpointing_enable(gradient_checkpointing_kwargs=how)
            if part.main_input_name == "input_ids":
                part.disable_input_require_grads()  # gradients of the embeddings' output, which nobody needs


def _contexts(part: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """What surrounds the first computation of a layer, and the second one."""
    return nullcontext(), _again(part)


@contextmanager
def _again(part: nn.Module) -> Iterator[None]:
    """Leaves batch-norm statistics as the first computation left them; what there was to warn of was said then."""
    counted = statistics(part)
    counted |= {name: buffer for name, buffer in part.named_buffers() if name.endswith("num_batches_tracked")}
    before = {name: buffer.clone() for name, buffer in counted.items()}
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        copy_into(counted, before)
