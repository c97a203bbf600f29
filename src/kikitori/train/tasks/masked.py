"""Training an encoder on speech without transcripts, by masked prediction (see `masked_predictor.py`).

loss = cross-entropy of the clusters of hidden frames, per target.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function

from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.errors import DataError, counted
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.adapters.lora import idle, merged_encoder
from kikitori.model.encoder import EncoderOutput
from kikitori.model.folder import save_network
from kikitori.train.losses.frame_targets import FrameFeatures, FrameTargets, perplexity
from kikitori.train.recipe.masked_prediction import MaskedPredictionRecipe
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.masked_predictor import MaskedPredictor, draw_mask
from kikitori.train.tasks.speech_batches import SpeechBatches, dev_batches

MASKS, DEV_MASKS = 2, 3
"""Tell the random numbers of masks from those of the augmentation, and those of dev from those of training."""

NOTHING = -1
"""Target behind the end of an utterance."""


@dataclass(frozen=True, eq=False)
class MaskedBatch:
    """Speech, what is hidden of it, and what is to be predicted.

    Attributes:
        masks: Which encoder frames are hidden, (batch, frames).
        targets: Clusters, (batch, frames, upsample); `NOTHING` behind the end of an utterance.
    """

    speech: SpeechBatch
    masks: Tensor
    targets: Tensor

    @property
    def utt_ids(self) -> tuple[str, ...]:
        """Names of the utterances."""
        return self.speech.utt_ids


@dataclass(frozen=True, eq=False)
class Prediction:
    """What was predicted of some frames.

    Attributes:
        losses: Cross-entropy of each target, (n,).
        best: The most likely clusters, (n,).
        targets: Those that it should have been, (n,).
    """

    losses: Tensor
    best: Tensor
    targets: Tensor

    @property
    def accuracy(self) -> float:
        """Share of the targets that were predicted."""
        return (self.best == self.targets).float().mean().item()


class MaskedPredictionTask(SpeechBatches):
    """Trains an encoder by masked prediction of clusters of features; see `kikitori.train.tasks.base.Task`."""

    def __init__(
        self,
        recipe: MaskedPredictionRecipe,
        predictor: MaskedPredictor,
        features: FrameFeatures,
        train: SpeechLoader,
        dev: SpeechLoader | None,
    ) -> None:
        super().__init__(recipe, train, dev)
        self.masks = recipe.masks
        self.predictor, self.encoder = predictor, predictor.encoder
        self.module = nn.ModuleDict({"model": predictor})
        self.labels = FrameTargets(features, train)
        self.dev_labels = FrameTargets(features, dev) if dev is not None else None
        self._told: set[str] = set()

    def load(self, indices: list[int], epoch: int) -> MaskedBatch | None:
        """Reads and augments a batch, and draws its masks."""
        speech = self.train.batch(indices, epoch=epoch)
        if speech is None:
            return None
        return self._masked(speech, self.labels, lambda index: (self.recipe.seed, epoch, index, MASKS))

    def loss(self, batch: MaskedBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy of hidden frames per target."""
        with record_function("encoder"):
            inputs, lengths = self.inputs(self.encoder, batch.speech, position)
            masks = batch.masks.to(inputs.device)
            encoded = self.predictor(inputs, lengths, masks)
        hidden = self._prediction(encoded, batch, masks)
        total = hidden.losses.mean()
        parts = {"masked": total.item(), "accuracy": hidden.accuracy}
        return total, parts

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Cross-entropy and accuracy at the hidden frames of dev, the same ones each time; how clusters are used.

        Guessing without listening costs the logarithm of `target_perplexity`. Where this is far below the number of
        clusters, the targets have collapsed; where `prediction_perplexity` is, the predictions have.
        """
        if self.dev is None or self.dev_labels is None:
            return {}
        device = next(self.encoder.parameters()).device
        loss, targets, best = 0.0, [], []
        for speech in dev_batches(self.dev):
            batch = self._masked(speech, self.dev_labels, lambda index: (self.recipe.seed, index, DEV_MASKS))
            inputs = self.encoder.features(speech.waveforms.to(device), speech.lengths.to(device))
            masks = batch.masks.to(device)
            hidden = self._prediction(self.predictor(*inputs, masks), batch, masks)
            loss += hidden.losses.sum(dtype=torch.float64).item()
            targets.append(hidden.targets.cpu().numpy())
            best.append(hidden.best.cpu().numpy())
        if not targets:
            raise DataError("no dev utterance can be read", remedy="check the files of data.dev")
        wanted, found = np.concatenate(targets), np.concatenate(best)
        return {
            "masked_loss": loss / len(wanted),
            "masked_accuracy": float((wanted == found).mean()),
            "target_perplexity": perplexity(np.bincount(wanted)),
            "prediction_perplexity": perplexity(np.bincount(found)),
        }

    def data_digest(self) -> str:
        """Names, durations and texts of the training speech."""
        return self.train.utterances.digest()

    def data_counts(self) -> dict[str, int]:
        """Utterances of an epoch."""
        return {"utterances": len(self.train.utterances)}

    def export(self, directory: Path) -> None:
        """Writes the encoder alone, adapters merged, as `encoder.init` of another recipe reads it."""
        save_network(directory, merged_encoder(self.encoder).model)

    def describe(self, batch: MaskedBatch) -> list[str]:
        """Size of a batch in seconds and frames, and what is hidden of it."""
        frames, speech = int((batch.targets[..., 0] != NOTHING).sum()), batch.speech
        used = perplexity(np.bincount(batch.targets[batch.targets != NOTHING].numpy()))
        return [
            f"largest batch: {counted(len(speech.utt_ids), 'utterance')}, {speech.seconds:.1f} s, {frames} frames"
            f" ({speech.waveforms.numel() / SAMPLE_RATE:.1f} s with padding)",
            f"hidden: {int(batch.masks.sum())} frames; targets: perplexity {used:.1f} of {self.predictor.clusters}",
        ]

    def remarks(self) -> list[str]:
        """Files that cannot be read, and adapters that do nothing; each is told once."""
        unreadable = {*self.train.unreadable, *(self.dev.unreadable if self.dev is not None else ())}
        lines = {f"{problem}; left out" for problem in unreadable} | {*idle({"encoder": self.encoder})}
        news = sorted(lines - self._told)
        self._told |= lines
        return news

    def _masked(
        self, speech: SpeechBatch, labels: FrameTargets, seeds: Callable[[int], tuple[int, ...]]
    ) -> MaskedBatch:
        """A batch with masks from generators seeded by the utterance."""
        lengths = self.encoder.output_lengths(speech.lengths).tolist()
        upsample, seconds = self.predictor.upsample, self.encoder.seconds_per_frame
        span = max(1, round(self.masks.seconds / seconds))
        means = self.predictor.means
        masks = torch.zeros(len(lengths), max(lengths), dtype=torch.bool)
        targets = torch.full((len(lengths), max(lengths), upsample), NOTHING)
        for row, (index, frames, samples) in enumerate(
            zip(speech.indices, lengths, speech.lengths.tolist(), strict=True)
        ):
            mask = draw_mask(frames, span, self.masks.share, np.random.default_rng(seeds(index)))
            masks[row, :frames] = torch.from_numpy(mask)
            found = labels.at_outputs(index, means, frames * upsample, seconds / upsample, samples)
            targets[row, :frames] = torch.from_numpy(found).unflatten(0, (frames, upsample))
        return MaskedBatch(speech, masks, targets)

    def _prediction(self, encoded: EncoderOutput, batch: MaskedBatch, chosen: Tensor) -> Prediction:
        """What is predicted of the chosen frames, a mask (batch, frames)."""
        logits = self.predictor.logits(encoded.frames[chosen]).flatten(0, 1)
        targets = batch.targets.to(chosen.device)[chosen].flatten()
        losses = nn.functional.cross_entropy(logits, targets, reduction="none")
        return Prediction(losses, logits.argmax(dim=1), targets)
