"""CTC compression: the bridge of Nue-ASR that also reads what a CTC head says of the frames."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.model.features import cut_tail, valid_mask


class CTCCompressBridge(nn.Module):
    """CTC compression: the outputs of a CTC head decide which frames become positions, then one linear map.

    Neighbouring frames with the same best output are a run, as in CTC itself. Which frames stay, and whether a run
    becomes one position, is decided without gradient; see `compress`.

    Raises:
        ModelError: There is no such choice, or both are `keep`.
    """

    reads_ctc: ClassVar[bool] = True

    def __init__(self, dim: int, llm_dim: int, blanks: str = "drop", repeats: str = "keep") -> None:
        super().__init__()
        if blanks not in ("drop", "keep") or repeats not in ("keep", "average", "weighted"):
            raise ModelError(
                f"a ctc_compress bridge cannot have blanks {blanks!r} and repeats {repeats!r}",
                remedy="blanks are drop or keep, repeats are keep, average or weighted",
            )
        if blanks == repeats == "keep":
            raise ModelError("a ctc_compress bridge that keeps all frames", remedy="use a stack bridge with stride 1")
        self.dim, self.llm_dim, self.blanks, self.repeats = dim, llm_dim, blanks, repeats
        self.linear = nn.Linear(dim, llm_dim)

    def output_lengths(self, lengths: Tensor) -> None:
        """Only the speech can tell."""

    def forward(self, frames: Tensor, lengths: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        """As `Bridge`, with the CTC log-probabilities (batch, frames, labels + 1) of the frames, blank last."""
        frames, lengths = compress(frames, lengths, log_probs, blanks=self.blanks, repeats=self.repeats)
        return cut_tail(self.linear(frames), lengths)

    def pool(self, values: Tensor, lengths: Tensor, log_probs: Tensor) -> Tensor:
        """What stands at the frames (batch, frames, n), compressed as they are: (batch, positions, n)."""
        return compress(values, lengths, log_probs, blanks=self.blanks, repeats=self.repeats)[0]


def compress(frames: Tensor, lengths: Tensor, log_probs: Tensor, *, blanks: str, repeats: str) -> tuple[Tensor, Tensor]:
    """CTC compression of frames: blanks dropped, runs of equal outputs averaged, or both.

    The averages are those of Gaido et al. 2021, "CTC-based Compression for Direct Speech Translation". The best output
    of a frame is its most probable one, the first of several. An utterance of nothing but blanks keeps the frame where
    blank is least probable. Time and memory are linear in the frames.

    Args:
        frames: (batch, frames, dim), right-padded with anything.
        lengths: Valid frames, (batch,).
        log_probs: CTC log-probabilities (batch, frames, labels + 1), blank last, right-padded with anything.
        blanks: `drop` or `keep` the frames whose best output is blank.
        repeats: `keep` the frames of a run, or make it one: their `average`, or the average `weighted` with the
            probabilities of the run's output, through which gradients also reach `log_probs`.

    Returns:
        Frames (batch, positions, dim) in their order, zero behind each utterance, and their number (batch,): at least 1
        and at most as many as there were.
    """
    scores, best = log_probs.max(dim=-1)
    valid, blank_id = valid_mask(lengths, frames.shape[1]), log_probs.shape[2] - 1
    kept = valid & (best != blank_id) if blanks == "drop" else valid
    rescued = _least_blank(log_probs[..., blank_id], valid) & ~kept.any(dim=1, keepdim=True)
    opens = kept if repeats == "keep" else kept & _differs_from_previous(best)
    kept, opens = kept | rescued, opens | rescued

    run = opens.flatten().cumsum(0)[kept.flatten()] - 1  # that each kept frame belongs to, counted over the batch
    counts = opens.sum(dim=1)
    weights = scores[kept].exp() if repeats == "weighted" else torch.ones_like(scores[kept])
    weighted = frames[kept] * weights[:, None]
    # index_add adds in the same order every time, on the CPU at least; an accumulating index_put does not.
    sums = weighted.new_zeros(int(counts.sum()), frames.shape[2]).index_add(0, run, weighted)
    totals = weights.new_zeros(len(sums)).index_add(0, run, weights)
    places = valid_mask(counts, int(counts.max()))
    padded = frames.new_zeros(*places.shape, frames.shape[2])
    return padded.masked_scatter(places[..., None], (sums / totals[:, None]).to(frames.dtype)), counts


def _differs_from_previous(best: Tensor) -> Tensor:
    """True where a run of equal outputs (batch, frames) begins, so at every first frame."""
    return nn.functional.pad(best[:, 1:] != best[:, :-1], (1, 0), value=True)


def _least_blank(blank_scores: Tensor, valid: Tensor) -> Tensor:
    """True at one frame (batch, frames) of each utterance: the first of those where blank is least probable."""
    least = blank_scores.masked_fill(~valid, torch.inf).argmin(dim=1, keepdim=True)
    return torch.zeros_like(valid).scatter(1, least, value=True) & valid
