"""The bridge: shortens encoder frames and maps them to the input space of the LLM.

In: frames (batch, frames, dim) with lengths (batch,). Out: the speech prompt `speech_embeds` (batch, positions,
llm_dim) with lengths, zero behind each utterance. The positions of an utterance depend on its own valid frames alone.
`ConvBridge` is the bridge of Nue-ASR (two strided convolutions), `StackBridge` the frame-stacking linear adapter of
"LLMs and Speech: Integration vs. Combination", `CTCCompressBridge` the other bridge of Nue-ASR, which also reads what
a CTC head says of the frames.
"""

from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.model.ctc_compression import CTCCompressBridge
from kikitori.model.features import cut_tail, mask_tail

CONV_KERNEL = 4
CONV_STRIDE = 2


class Bridge(Protocol):
    """What lies between encoder and LLM; every bridge is also an `nn.Module`.

    `CTCCompressBridge` alone is called with posteriors too, and has no lengths to foretell.

    Attributes:
        reads_ctc: Whether it is called with the CTC log-probabilities of the frames too.
        stride: Frames per position.
    """

    reads_ctc: ClassVar[bool]
    dim: int
    llm_dim: int
    stride: int

    def __call__(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim) to (speech_embeds (batch, positions, llm_dim), lengths (batch,))."""
        ...

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Exact number of positions for so many frames, as an integer tensor of the same shape."""
        ...

    def pool(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Sums of what stands at the frames (batch, frames, n) of each position, (batch, positions, n).

        Every valid frame belongs to exactly one position.
        """
        ...


class ConvBridge(nn.Module):
    """Strided convolutions without padding, each followed by GELU, then one linear map.

    One convolution (kernel 4, stride 2) halves the frames; the stride is their power of 2. An utterance too short for
    one position (fewer than 10 frames at stride 4, none included) is padded with zero frames up to exactly one
    position; any longer one loses the incomplete window at its end.

    Raises:
        ModelError: The stride is no such power of 2.
    """

    reads_ctc: ClassVar[bool] = False

    def __init__(self, dim: int, llm_dim: int, stride: int = 4) -> None:
        super().__init__()
        if stride < CONV_STRIDE or stride & (stride - 1):
            raise ModelError(f"a conv bridge cannot have stride {stride}", remedy="use 2, 4, 8 or another power of 2")
        self.dim, self.llm_dim, self.stride = dim, llm_dim, stride
        self.convs = nn.ModuleList(
            nn.Conv1d(dim, dim, CONV_KERNEL, CONV_STRIDE) for _ in range(stride.bit_length() - 1)
        )
        self.linear = nn.Linear(dim, llm_dim)

    @property
    def min_frames(self) -> int:
        """Fewest frames that give a position without zero frames."""
        size = 1
        for _ in self.convs:
            size = (size - 1) * CONV_STRIDE + CONV_KERNEL
        return size

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """floor((length - 4) / 2) + 1 for each convolution, at least 1 in the end."""
        lengths = lengths.clamp(min=self.min_frames)
        for _ in self.convs:
            lengths = (lengths - CONV_KERNEL) // CONV_STRIDE + 1
        return lengths

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim) to the speech prompt (batch, positions, llm_dim), and lengths."""
        hidden = _pad_frames(mask_tail(frames, lengths), self.min_frames - frames.shape[1])
        hidden = hidden.transpose(1, 2)
        for conv in self.convs:
            hidden = nn.functional.gelu(conv(hidden))
        return cut_tail(self.linear(hidden.transpose(1, 2)), self.output_lengths(lengths))

    def pool(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Sums over the frames that lie in the middle of a position's window, or nearest to it."""
        margin = (self.min_frames - self.stride) // 2
        return _sum_frames(values, lengths, self.output_lengths(lengths), self.stride, margin)


class StackBridge(nn.Module):
    """Every `stride` neighbouring frames side by side, the tail filled with zero frames, then one linear map.

    Raises:
        ModelError: The stride is below 1.
    """

    reads_ctc: ClassVar[bool] = False

    def __init__(self, dim: int, llm_dim: int, stride: int = 1) -> None:
        super().__init__()
        if stride < 1:
            raise ModelError(f"a stack bridge cannot have stride {stride}", remedy="use 1 or more frames per position")
        self.dim, self.llm_dim, self.stride = dim, llm_dim, stride
        self.linear = nn.Linear(stride * dim, llm_dim)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """ceil(length / stride)."""
        return (lengths + self.stride - 1) // self.stride

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim) to the speech prompt (batch, positions, llm_dim), and lengths."""
        stacked = _pad_frames(mask_tail(frames, lengths), -frames.shape[1] % self.stride)
        stacked = stacked.reshape(frames.shape[0], stacked.shape[1] // self.stride, self.stride * self.dim)
        return cut_tail(self.linear(stacked), self.output_lengths(lengths))

    def pool(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Sums of values (batch, frames, n) over the frames of each position."""
        return _sum_frames(values, lengths, self.output_lengths(lengths), self.stride)


class IdentityBridge(nn.Module):
    """The frames themselves, for an encoder whose frames are as large as the LLM's embeddings.

    Raises:
        ModelError: The sizes differ.
    """

    reads_ctc: ClassVar[bool] = False

    def __init__(self, dim: int, llm_dim: int) -> None:
        super().__init__()
        if dim != llm_dim:
            raise ModelError(
                f"an identity bridge cannot turn frames of size {dim} into LLM embeddings of size {llm_dim}",
                remedy="use a stack bridge with stride 1",
            )
        self.dim, self.llm_dim, self.stride = dim, llm_dim, 1

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """The lengths themselves."""
        return lengths

    def forward(self, frames: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (batch, frames, dim) to the speech prompt (batch, positions, llm_dim), and lengths."""
        return cut_tail(frames, lengths)

    def pool(self, values: Tensor, lengths: Tensor) -> Tensor:
        """Sums of values (batch, frames, n) over the frames of each position."""
        return cut_tail(values, lengths)[0]


def build_bridge(
    kind: str, dim: int, llm_dim: int, stride: int, *, blanks: str = "drop", repeats: str = "keep"
) -> ConvBridge | StackBridge | IdentityBridge | CTCCompressBridge:
    """The bridge of a configuration: kind `conv`, `stack`, or with stride 1 only `identity` or `ctc_compress`.

    `ctc_compress` alone takes what becomes of blanks and repeats.

    Raises:
        ModelError: An unknown kind, or a stride or size that the kind cannot have.
    """
    match kind:
        case "conv":
            return ConvBridge(dim, llm_dim, stride)
        case "stack":
            return StackBridge(dim, llm_dim, stride)
        case "identity" if stride == 1:
            return IdentityBridge(dim, llm_dim)
        case "identity":
            raise ModelError(f"an identity bridge cannot have stride {stride}", remedy="use stride 1 or a stack bridge")
        case "ctc_compress" if stride == 1:
            return CTCCompressBridge(dim, llm_dim, blanks, repeats)
        case "ctc_compress":
            raise ModelError(
                f"a ctc_compress bridge cannot have stride {stride}",
                remedy="use stride 1: the speech decides how many positions it takes",
            )
        case _:
            raise ModelError(f"unknown bridge {kind!r}", remedy="use conv, stack, identity or ctc_compress")


def _pad_frames(frames: Tensor, count: int) -> Tensor:
    return nn.functional.pad(frames, (0, 0, 0, count)) if count > 0 else frames


def _sum_frames(values: Tensor, lengths: Tensor, num_positions: Tensor, stride: int, margin: int = 0) -> Tensor:
    """Sums of `stride` neighbouring frames, those in the margins counted to the first and the last position."""
    frame = torch.arange(values.shape[1], device=values.device)
    position = ((frame - margin).clamp(min=0) // stride).minimum(num_positions[:, None] - 1)
    sums = values.new_zeros(len(values), int(num_positions.max()), values.shape[2])
    return sums.scatter_add(1, position[..., None].expand_as(values), mask_tail(values, lengths))
