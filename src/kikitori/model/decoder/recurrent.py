"""States of recurrent layers (linear attention, state space models, short convolutions) in the cache of transformers.

Such a layer keeps one state of fixed size for all that it has read, and writes into it. Here the states are copied
before each pass, so that a `DecoderState` stays as it was; rows can be forked and reordered, but no label can be taken
back. A padded position would change the state of its row: what reads with these states reads rows of one length, or
label by label.
"""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from kikitori.model.decoder.llm import text_config
from kikitori.model.decoder.memory import Layers, Recurrent

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

_recurrent: "WeakKeyDictionary[PreTrainedModel, bool]" = WeakKeyDictionary()


def is_recurrent(llm: "PreTrainedModel") -> bool:
    """Whether some layers keep a recurrent state; asked of the configuration once."""
    found = _recurrent.get(llm)
    if found is None:
        from transformers import DynamicCache
        from transformers.cache_utils import LinearAttentionCacheLayerMixin

        layers = DynamicCache(config=text_config(llm)).layers
        found = _recurrent[llm] = any(isinstance(layer, LinearAttentionCacheLayerMixin) for layer in layers)
    return found


def to_cache(llm: "PreTrainedModel", layers: Layers, recurrent: Recurrent) -> "DynamicCache":
    """A cache with copies of the states; keys and values are not copied, for they are never written into.

    Nothing of both is the cache before the first pass.
    """
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer, LinearAttentionCacheLayerMixin

    cache = DynamicCache(config=text_config(llm))
    cache.layers = [_unlimited(layer) for layer in cache.layers]
    states, pairs = iter(recurrent), iter(layers)
    for layer in cache.layers if recurrent else ():
        if isinstance(layer, LinearAttentionCacheLayerMixin):
            for index in range(layer.number_of_states):
                _restore(layer, index, next(states), next(states))
        if isinstance(layer, DynamicLayer):
            keys, values = next(pairs)
            DynamicLayer.lazy_initialization(layer, keys, values)  # notes type and device
            layer.keys, layer.values = keys, values
    return cache


def from_cache(cache: "DynamicCache") -> Recurrent:
    """The states of recurrent layers after a pass, of each first that of its convolution."""
    from transformers.cache_utils import LinearAttentionCacheLayerMixin

    return tuple(
        state
        for layer in cache.layers
        if isinstance(layer, LinearAttentionCacheLayerMixin)
        for index in range(layer.number_of_states)
        for state in (layer.conv_states[index], layer.recurrent_states[index])
    )


def chosen(new: Recurrent, old: Recurrent, goes_on: Tensor) -> Recurrent:
    """The new states of rows that go on (batch,), the old ones of the others."""
    return tuple(
        after if after is None or before is None else torch.where(_beside(goes_on, after), after, before)
        for after, before in zip(new, old, strict=True)
    )


def together(parts: list[tuple[Tensor, Recurrent]]) -> Recurrent:
    """The states of a whole batch, from rows and states of its parts."""
    order = torch.cat([rows for rows, _ in parts]).argsort()
    return tuple(
        None
        if any(each is None for each in states)
        else torch.cat([each for each in states if each is not None])[order]
        for states in zip(*(recurrent for _, recurrent in parts), strict=True)
    )


def _unlimited(layer: Any) -> Any:
    """A layer that keeps all keys and values where transformers' would keep a window: masks know about windows."""
    from transformers.cache_utils import (
        DynamicLayer,
        DynamicSlidingWindowLayer,
        LinearAttentionAndFullAttentionLayer,
        LinearAttentionAndSlidingWindowAttentionLayer,
    )

    if isinstance(layer, LinearAttentionAndSlidingWindowAttentionLayer):
        return LinearAttentionAndFullAttentionLayer(number_of_states=layer.number_of_states)
    return DynamicLayer() if isinstance(layer, DynamicSlidingWindowLayer) else layer


def _restore(layer: Any, index: int, convolution: Tensor | None, recurrence: Tensor | None) -> None:
    if convolution is not None:
        layer.conv_states[index], layer.is_conv_states_initialized[index] = convolution.clone(), True
        layer.conv_kernel_size[index] = convolution.shape[-1]
        layer.dtype, layer.device = convolution.dtype, convolution.device
    if recurrence is not None:
        layer.recurrent_states[index], layer.is_recurrent_states_initialized[index] = recurrence.clone(), True
    layer.has_previous_state[index] = True


def _beside(rows: Tensor, state: Tensor) -> Tensor:
    return rows.view(-1, *[1] * (state.ndim - 1))
