"""The speech beside the text: keys and values that every LLM layer may attend to, made once per utterance.

An interface other than the prefix makes a `Memory` (`interface`). `DecoderState` carries it through a search, where
hypotheses of one utterance share it: forking and reordering move row numbers, never keys and values. `Reading` is what
the LLM's layers see of it during one forward pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor, nn

from kikitori.model.features import valid_mask

MERGED = "kikitori_merged"
"""The attention function over speech and text (`interface`), by its name within transformers."""
Layers = tuple[tuple[Tensor, Tensor], ...]  # keys and values (batch, heads, positions, head_dim) of every LLM layer
Recurrent = tuple[Tensor | None, ...]
"""States (batch, ...) of recurrent layers, in the order of `recurrent`."""


@dataclass(frozen=True, eq=False)
class Memory:
    """Keys and values of some utterances' speech, and which of the utterances each row of a batch listens to.

    Attributes:
        readers: The interface's module for each LLM layer, which knows how the layer reads.
        layers: Keys and values (utterances, heads, positions, head_dim) per LLM layer.
        lengths: Real positions per utterance, (utterances,) int64.
        rows: The utterance of each row, (batch,) int64; None if every utterance has one row, in order.
    """

    readers: Sequence[nn.Module]
    layers: Layers
    lengths: Tensor
    rows: Tensor | None = None

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return len(self.lengths if self.rows is None else self.rows)

    def of_rows(self, utterances: Tensor) -> Tensor:
        """One item per row from one item per utterance."""
        return utterances if self.rows is None else utterances.index_select(0, self.rows)

    def reorder(self, rows: Tensor) -> "Memory":
        """Make row i listen to what `rows[i]` listened to; shares keys and values with this memory."""
        return replace(self, rows=rows if self.rows is None else self.rows.index_select(0, rows))

    def tightened(self) -> "Memory":
        """Forget the utterances that no row listens to any more, and the positions that only they had.

        Only once they are half of all: what is left is copied while the decoder still holds the whole.
        """
        if self.rows is None:
            return self
        used, rows = self.rows.unique(return_inverse=True)
        if 2 * len(used) > len(self.lengths):
            return self
        alone = len(used) == len(rows)  # each row with an utterance of its own
        kept = self.rows if alone else used
        lengths = self.lengths[kept]
        columns = int(lengths.max())
        layers = tuple((keys[kept, :, :columns], values[kept, :, :columns]) for keys, values in self.layers)
        return Memory(self.readers, layers, lengths, None if alone else rows)


class Reading:
    """One forward pass of the LLM over a memory.

    Args:
        memory: What is read.
        rotary: Gives cosines and sines (batch, n, rotary_dim) of the pass's position ids, for a reader that needs them.
        watched: Whether readers write their attention out and leave its weights in `weights`.

    Attributes:
        valid: Which positions of the speech are real, (batch, positions) bool.
        unread: LLM layers that have not read yet.
        watched: As given.
        weights: What each LLM layer has read, (batch, heads, n, positions), where that is watched.
    """

    def __init__(self, memory: Memory, rotary: Callable[[], tuple[Tensor, Tensor]], *, watched: bool = False) -> None:
        self._memory, self._rotary, self.watched = memory, rotary, watched
        self.weights: dict[int, Tensor] = {}
        self.valid = valid_mask(memory.of_rows(memory.lengths), memory.layers[0][0].shape[2])
        self.unread = set(range(len(memory.layers)))

    def layer(self, index: int) -> tuple[nn.Module, Tensor, Tensor]:
        """The reader of an LLM layer, with keys and values (batch, heads, positions, head_dim)."""
        self.unread.discard(index)
        keys, values = self._memory.layers[index]
        return self._memory.readers[index], self._memory.of_rows(keys), self._memory.of_rows(values)

    @cached_property
    def rotary(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines (batch, n, rotary_dim) that have rotated the queries of this pass."""
        return self._rotary()
