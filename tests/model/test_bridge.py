import pytest
import torch

from kikitori.errors import ModelError
from kikitori.model.bridge import Bridge, ConvBridge, IdentityBridge, StackBridge, build_bridge
from kikitori.model.ctc_compression import CTCCompressBridge

ALL_LENGTHS = torch.arange(2001)
KINDS = [("conv", 2), ("conv", 4), ("conv", 8), ("stack", 1), ("stack", 3), ("stack", 8), ("identity", 1)]


def make(kind: str, stride: int) -> ConvBridge | StackBridge | IdentityBridge:
    torch.manual_seed(0)
    bridge = build_bridge(kind, 6, 6, stride)
    assert not isinstance(bridge, CTCCompressBridge)
    return bridge


def test_conv_lengths_follow_the_paper() -> None:
    for length, positions in zip(
        ALL_LENGTHS.tolist(), make("conv", 4).output_lengths(ALL_LENGTHS).tolist(), strict=True
    ):
        first = (length - 4) // 2 + 1
        assert positions == ((first - 4) // 2 + 1 if length >= 10 else 1)


def test_stack_lengths_round_up() -> None:
    assert make("stack", 3).output_lengths(torch.tensor([0, 1, 2, 3, 4])).tolist() == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(("kind", "stride"), KINDS)
def test_lengths_are_exact_for_every_length(kind: str, stride: int) -> None:
    bridge: Bridge = make(kind, stride)
    expected = bridge.output_lengths(ALL_LENGTHS)
    with torch.no_grad():
        for length in [*range(1, 60), 100, 999, 1000, 1001, 1002, 1003, 2000]:
            embeds, lengths = bridge(torch.zeros(1, length, 6), torch.tensor([length]))
            assert embeds.shape == (1, int(expected[length]), 6)
            assert lengths.tolist() == [embeds.shape[1]]
    assert (expected.diff() >= 0).all()


@pytest.mark.parametrize(("kind", "stride"), KINDS)
def test_batch_equals_single_whatever_the_padding(kind: str, stride: int) -> None:
    bridge = make(kind, stride)
    lengths = torch.tensor([50, 1, 9, 10, 11, 23])
    frames = torch.full((6, 64, 6), float("nan"))
    for row, length in enumerate(lengths.tolist()):
        frames[row, :length] = torch.randn(length, 6)
    with torch.no_grad():
        embeds, out_lengths = bridge(frames, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone, alone_lengths = bridge(frames[row : row + 1, :length], lengths[row : row + 1])
            size = int(out_lengths[row])
            assert alone_lengths.tolist() == [size]
            torch.testing.assert_close(embeds[row, :size], alone[0], atol=1e-6, rtol=0)
            assert embeds[row, size:].abs().sum() == 0


@pytest.mark.parametrize(("kind", "stride"), KINDS[:-1])
def test_gradients_reach_weights_and_valid_frames(kind: str, stride: int) -> None:
    bridge = make(kind, stride)
    frames = torch.randn(2, 40, 6, requires_grad=True)
    embeds, _ = bridge(frames, torch.tensor([40, 22]))
    embeds.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in bridge.parameters())
    assert frames.grad is not None
    assert frames.grad[1, :22].abs().sum() > 0
    assert frames.grad[1, 22:].abs().sum() == 0


def test_conv_weights_have_the_shapes_of_the_paper() -> None:
    bridge = ConvBridge(768, 2816)
    assert [tuple(conv.weight.shape) for conv in bridge.convs] == [(768, 768, 4)] * 2
    assert tuple(bridge.linear.weight.shape) == (2816, 768)
    assert bridge.min_frames == 10


@pytest.mark.parametrize(
    ("kind", "sizes", "stride", "word"),
    [
        ("conv", (6, 6), 3, "stride 3"),
        ("conv", (6, 6), 1, "stride 1"),
        ("stack", (6, 6), 0, "stride 0"),
        ("identity", (6, 6), 2, "stride 2"),
        ("identity", (6, 8), 1, "stack bridge with stride 1"),
        ("ctc_compress", (6, 8), 2, "stride 2; use stride 1: the speech decides"),
        ("linear", (6, 6), 1, "unknown bridge 'linear'"),
    ],
)
def test_impossible_bridges_are_refused(kind: str, sizes: tuple[int, int], stride: int, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        build_bridge(kind, *sizes, stride)


@pytest.mark.parametrize(("kind", "stride"), KINDS)
def test_every_frame_belongs_to_the_position_that_hears_it_best(kind, stride):
    bridge = make(kind, stride)
    margin = (bridge.min_frames - stride) // 2 if isinstance(bridge, ConvBridge) else 0
    lengths = torch.tensor([1, stride, 23, 40])
    values = torch.eye(42).expand(4, 42, 42)  # what stands at a frame says where it was
    pooled, positions = bridge.pool(values, lengths), bridge.output_lengths(lengths)
    assert pooled.shape == (4, int(positions.max()), 42)
    for row, (length, count) in enumerate(zip(lengths.tolist(), positions.tolist(), strict=True)):
        expected = torch.zeros(pooled.shape[1], 42)
        for frame in range(length):
            expected[min(max(frame - margin, 0) // stride, count - 1), frame] = 1.0
        assert torch.equal(pooled[row], expected)
