"""What a decoder remembers of a tree of label sequences: keys and values of each label once, however many share it.

A search forks, drops and takes up hypotheses at every step. Here a hypothesis is the list of places at which its labels
lie; forking and reordering copy such lists, and one that returns to the beam finds its labels where they were. Keys
and values are gathered for the rows that grow, and for no others. States of recurrent layers are far larger than keys
and values of a label, so that the tree does not keep them: who holds a hypothesis holds its states.
"""

import torch
from torch import Tensor

from kikitori.model.decoder.base import Decoder, DecoderState, start, step
from kikitori.model.decoder.memory import Layers, Recurrent

FEWEST_PLACES = 64


class LabelTree:
    """Label sequences behind the prefixes of a decoder; it only ever grows."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self._stored = decoder, KeyValues()
        logits, state = start(decoder)
        self._memory = state.memory
        self.prefix = self._stored.keep(state.layers, 0, state.valid)
        """Places of each prefix, (prefixes, longest)."""
        self.lengths = state.lengths
        """How many these are, (prefixes,)."""
        self.logits = logits
        """Logits of the label behind each prefix, (prefixes, vocab)."""
        self.recurrent = state.recurrent
        """States of recurrent layers behind each prefix, (prefixes, ...) each."""

    def append(
        self,
        places: Tensor,
        counts: Tensor,
        labels: Tensor,
        lengths: Tensor,
        prefixes: Tensor,
        recurrent: Recurrent = (),
    ) -> tuple[Tensor, Tensor, Recurrent]:
        """Scores what may follow each of some new labels.

        Args:
            places: Of the labels so far, (rows, longest), the prefix included; what is beyond `counts` does not matter.
            counts: How many these are, (rows,).
            labels: New labels, (rows, n).
            lengths: How many of these count, (rows,), each 1 to n.
            prefixes: The prefix that each row begins with, (rows,).
            recurrent: States of recurrent layers behind the labels so far, (rows, ...) each.

        Returns:
            Logits (rows, n, vocab) of what follows each label, the labels' places (rows, n), 0 beyond `lengths`, and
            the states behind them.
        """
        places = places[:, : int(counts.max())]
        valid = torch.arange(places.shape[1], device=counts.device) < counts[:, None]
        places = places.masked_fill(~valid, 0)
        memory = self._memory and self._memory.reorder(prefixes)
        state = DecoderState(self._stored.gather(places), valid, counts, memory, recurrent)
        logits, state = step(self._decoder, labels, state, lengths)
        new = torch.arange(labels.shape[1], device=counts.device) < lengths[:, None]
        return logits, self._stored.keep(state.layers, places.shape[1], new), state.recurrent


class KeyValues:
    """Keys and values of labels, each at a place of its own; there are only ever more of them."""

    def __init__(self) -> None:
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._size = 0

    def gather(self, places: Tensor) -> Layers:
        """Those at some places (rows, slots), as rows of a cache: (rows, heads, slots, dim) each."""
        return tuple((keys[places].transpose(1, 2), values[places].transpose(1, 2)) for keys, values in self._layers)

    def keep(self, layers: Layers, start: int, new: Tensor) -> Tensor:
        """Stores what is new, (rows, n), of the slots of a cache from `start` on; returns places, 0 for the others."""
        if not self._layers:
            self._layers = [(_empty(keys), _empty(values)) for keys, values in layers]
        count = int(new.sum())
        self._make_room(count)
        for stored, grown in zip(self._layers, layers, strict=True):
            for kept, tensor in zip(stored, grown, strict=True):
                kept[self._size : self._size + count] = tensor[:, :, start:].transpose(1, 2)[new]
        places = torch.zeros(new.shape, dtype=torch.int64, device=new.device)
        places[new] = torch.arange(self._size, self._size + count, device=new.device)
        self._size += count
        return places

    def _make_room(self, count: int) -> None:
        room = len(self._layers[0][0]) if self._layers else None  # an LLM without attention keeps none
        if room is None or self._size + count <= room:
            return
        size = max(2 * room, self._size + count)
        self._layers = [(_longer(keys, size), _longer(values, size)) for keys, values in self._layers]


def _empty(tensor: Tensor) -> Tensor:
    """Room for places like those of a cache (rows, heads, slots, dim): (places, heads, dim)."""
    return tensor.new_empty(FEWEST_PLACES, tensor.shape[1], tensor.shape[3])


def _longer(tensor: Tensor, size: int) -> Tensor:
    longer = tensor.new_empty(size, *tensor.shape[1:])
    longer[: len(tensor)] = tensor
    return longer
