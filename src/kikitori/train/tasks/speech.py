"""Training on transcribed speech: the acoustic model and the speech LLM.

loss = weighted CTC losses on encoder layers (per label) + cross-entropy on the text positions (speech LLM alone).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from transformers import PreTrainedModel

from kikitori.data.rows import Rows
from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.errors import DataError, counted
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.acoustic_model import AcousticModel, as_acoustic_model
from kikitori.model.adapters.lora import idle, is_adapted, merged_encoder
from kikitori.model.encoder import EncoderOutput, SpeechEncoder
from kikitori.model.folder import save_model
from kikitori.model.heads import CTCHead, ctc_loss
from kikitori.scoring.metrics import ErrorCounts, counted_errors, word_errors
from kikitori.search.ctc.best_path import ctc_greedy
from kikitori.text.bpe_dropout import BPEDropout
from kikitori.text.normalize import WITHOUT_WORDS, default_normalizer
from kikitori.text.units import TokenizerUnits
from kikitori.train.losses.phones import PhoneLosses
from kikitori.train.recipe.adaptation import SpeechAdaptationRecipe
from kikitori.train.recipe.components import CTC
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.cached_encoder import CachedEncoder
from kikitori.train.tasks.label_rates import LabelRates, label_rates
from kikitori.train.tasks.speech_batches import SpeechBatches, dev_batches
from kikitori.types import TrainedOn

Decoder = Callable[[SpeechBatch], list[str]]
SEGMENTATION = 1
"""Tells the random numbers of BPE dropout from those of the augmentation."""
CHARACTER_UPSAMPLE = 2
"""Outputs of the character head per frame; characters need about 25 a second."""


class AcousticTask(SpeechBatches):
    """Trains an acoustic model with CTC; see `kikitori.train.tasks.base.Task`.

    Args:
        recipe: The run's recipe.
        model: The acoustic model.
        units: Label units of the model.
        characters: Label units of the auxiliary character head, if the recipe asks for one.
        train: Training speech.
        dev: Dev speech, or None.
        phone_losses: Of the phone heads, if the recipe asks for them.
        cached: The encoder with its outputs kept on disk, if the recipe asks for it.
        own_ctc_units: Label units of frozen CTC heads that write others than the model.
    """

    def __init__(
        self,
        recipe: AcousticModelRecipe | SpeechLLMRecipe | SpeechAdaptationRecipe,
        model: AcousticNetwork,
        units: TokenizerUnits,
        characters: TokenizerUnits | None,
        train: SpeechLoader,
        dev: SpeechLoader | None,
        phone_losses: PhoneLosses | None = None,
        cached: CachedEncoder | None = None,
        own_ctc_units: TokenizerUnits | None = None,
    ) -> None:
        super().__init__(recipe, train, dev)
        self.cached = cached
        self.ctc = recipe.ctc
        self.acoustic, self.units, self.characters = model, units, characters
        self.own_ctc_units, self.ctc_units = own_ctc_units, own_ctc_units or units
        self.phone_losses = phone_losses
        rate = recipe.units.bpe_dropout
        self.sampled_units = BPEDropout(units, rate) if rate else None
        self.module = nn.ModuleDict({"model": model})
        if characters is not None:
            self.module["character_head"] = CTCHead(model.encoder.dim, characters.size, CHARACTER_UPSAMPLE)
        if phone_losses is not None:
            self.module["phone_teacher"] = phone_losses  # its name in checkpoints
        self.infeasible = set[str]()  # of those that were read
        self.unpronounced = set[str]()
        if phone_losses is not None:
            texts = {utterance.utt_id: utterance.text or "" for utterance in train.utterances}
            self.unpronounced = phone_losses.unknown(texts)
        self._told: set[str] = set()
        self._trained_on: tuple[int, TrainedOn] | None = None

    def load(self, indices: list[int], epoch: int) -> SpeechBatch | None:
        """Reads and augments a batch."""
        if self.cached is not None:
            return self.cached.load(self.train, indices, epoch)
        return self.train.batch(indices, epoch=epoch)

    def loss(self, batch: SpeechBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        """Weighted CTC losses."""
        return self.ctc_losses(self.encode(batch, position), batch, self.labels(batch, position))

    def labels(self, batch: SpeechBatch, position: BatchPosition) -> list[list[int]]:
        """Labels of a training batch; with `units.bpe_dropout` a segmentation of its own for each epoch."""
        if self.sampled_units is None:
            return [self.units.encode(text) for text in batch.texts]
        draws = (np.random.default_rng([self.recipe.seed, position.epoch, i, SEGMENTATION]) for i in batch.indices)
        return [self.sampled_units.encode(text, draw) for text, draw in zip(batch.texts, draws, strict=True)]

    def encode(self, batch: SpeechBatch, position: BatchPosition) -> EncoderOutput:
        """Frames of a training batch, with SpecAugment on log-mel features."""
        with record_function("encoder"):
            if self.cached is not None:
                return self.cached.encode(batch, self.train, position.epoch)
            encoder = self.acoustic.encoder
            inputs, lengths = self.inputs(encoder, batch, position)
            return encoder.encode(inputs, lengths, layers=loss_layers(self.acoustic, self.ctc))

    def encode_dev(self, batch: SpeechBatch) -> EncoderOutput:
        """Frames of a dev batch."""
        if self.cached is not None and self.dev is not None:
            return self.cached.encode(batch, self.dev, None)
        device = next(self.acoustic.parameters()).device
        return self.acoustic.encode(batch.waveforms.to(device), batch.lengths.to(device))

    def ctc_losses(
        self, encoded: EncoderOutput, batch: SpeechBatch, labels: Sequence[Sequence[int]]
    ) -> tuple[Tensor, dict[str, float]]:
        """The sum of the recipe's weighted CTC losses, each per label, and its parts."""
        settings = self.ctc
        if self.own_ctc_units is not None:
            labels = [self.own_ctc_units.encode(text) for text in batch.texts]
        total = encoded.frames.sum() * 0.0
        parts: dict[str, float] = {}
        with record_function("CTC heads"):
            for layer, weight in settings.weights.items():
                loss = self._ctc_loss(self.acoustic.log_probs(encoded, layer), labels, batch.utt_ids)
                total, parts[f"ctc{layer}"] = total + weight * loss, loss.item()
            if self.characters is not None:
                spelled = [self.characters.encode(self.units.normalize(text)) for text in batch.texts]
                posteriors = self.module["character_head"](encoded.intermediate[-1], encoded.lengths)
                loss = self._ctc_loss(posteriors, spelled, batch.utt_ids)
                total, parts["characters"] = total + settings.character_weight * loss, loss.item()
            for name, weight, loss in self.phone_losses.losses(encoded, batch) if self.phone_losses is not None else ():
                total, parts[name] = total + weight * loss, loss.item()
        return total, parts

    def evaluate(self) -> dict[str, float]:
        """Word error rate of CTC greedy decoding on dev, and the phone error rate."""
        if self.dev is None:
            return {}
        return self._score(self.dev, {"ctc_greedy": self.decode_ctc}) | self.phone_error_rate()

    @torch.inference_mode()
    def phone_error_rate(self) -> dict[str, float]:
        """Phone error rate of the last phone head on those dev utterances of which the lexicon has all words."""
        if self.phone_losses is None or self.dev is None:
            return {}
        counts = ErrorCounts(0, 0, 0, 0)
        for batch in dev_batches(self.dev):
            encoded = self.encode_dev(batch)
            for text, (best,) in zip(batch.texts, ctc_greedy(*self.acoustic.phone_log_probs(encoded)), strict=True):
                if (expected := self.phone_losses.phones(text)) is not None:
                    counts += word_errors(" ".join(map(str, expected)), " ".join(map(str, best.labels)))
        return {"per": counts.rate} if counts.reference_length else {}

    @torch.inference_mode()
    def decode_ctc(self, batch: SpeechBatch) -> list[str]:
        """CTC greedy texts of a batch."""
        log_probs, lengths = self.acoustic.log_probs(self.encode_dev(batch))
        return [self.ctc_units.decode(best.labels) for (best,) in ctc_greedy(log_probs, lengths)]

    def data_digest(self) -> str:
        """Names, durations and texts of the training speech."""
        return self.train.utterances.digest()

    def data_counts(self) -> dict[str, int]:
        """Utterances of an epoch, and those of them whose text a recogniser wrote."""
        rows = self.train.utterances
        return {"utterances": len(rows), "with_recognized_text": int(rows.table["recognized"].sum())}

    def merged_acoustic(self) -> AcousticModel:
        """The acoustic model with the encoder's adapters in its weights; the model itself if it has none."""
        if not is_adapted(self.acoustic.encoder):
            return as_acoustic_model(self.acoustic)
        model = AcousticModel(self.acoustic.config, encoder=merged_encoder(self.acoustic.encoder))
        model.ctc_heads.load_state_dict(self.acoustic.ctc_heads.state_dict())
        model.phone_heads.load_state_dict(self.acoustic.phone_heads.state_dict())
        return model

    def export(self, directory: Path) -> None:
        """Writes the acoustic model with its units, adapters merged."""
        save_model(directory, self.merged_acoustic(), self.units, self.trained_on, self.own_ctc_units)

    @property
    def trained_on(self) -> TrainedOn:
        """What decoding must know of the training speech; rows that cannot be right or read do not count.

        Which files cannot be read shows in training, so it is not the same at its beginning and at its end.
        """
        rows, unread = self.train.utterances, len(self.train.left_out)
        if self._trained_on is None or self._trained_on[0] != unread:  # it only grows, and all rows are read for it
            wrong = [row.utt_id in self.train.left_out for row in rows] if unread else [False] * len(rows)
            highest = self.label_rates.highest(rows.durations, np.array(wrong))
            self._trained_on = unread, TrainedOn(*highest, self.recipe.language)
        return self._trained_on[1]

    @cached_property
    def label_rates(self) -> LabelRates:
        """What the texts of all training speech ask for."""
        return self.rates_of(self.train.utterances)

    def rates_of(self, rows: Rows) -> LabelRates:
        """What the texts of some speech ask for."""
        encoder = self.acoustic.encoder if self.ctc.weights else None
        return label_rates(rows, self.units, self.ctc_units, encoder)

    @property
    def crowded(self) -> set[str]:
        """Utterances with so many labels in a second that their texts or durations must be wrong."""
        return {row.utt_id for row in self.train.utterances.take(self.label_rates.crowded)}

    def describe(self, batch: SpeechBatch) -> list[str]:
        """Size of a batch in seconds and frames, and how many utterances no CTC loss can use."""
        frames = self.acoustic.encoder.output_lengths(batch.lengths)
        infeasible = self.infeasible | {row.utt_id for row in self.train.utterances.take(self.label_rates.misfits)}
        crowded, unsaid, total = self.crowded, self.unpronounced, len(self.train.utterances)
        return [
            *(
                f"labels that do not fit into their frames: {counted(len(infeasible), 'utterance')}, such as {u}"
                for u in sorted(infeasible)[:1]
            ),
            *(
                f"far more labels a second than others: {counted(len(crowded), 'utterance')}, "
                f"such as {u}; check their texts"
                for u in sorted(crowded)[:1]
            ),
            *(
                f"words without a pronunciation: {len(unsaid)} of {total} utterances, such as {u}"
                for u in sorted(unsaid)[:1]
            ),
            f"largest batch: {counted(len(batch.texts), 'utterance')}, {batch.seconds:.1f} s, {frames.sum()} frames"
            f" ({batch.waveforms.numel() / SAMPLE_RATE:.1f} s with padding)",
        ]

    def remarks(self) -> list[str]:
        """Utterances that training could not use, and adapters that do nothing; each is told once."""
        lines = [
            f"{utt_id}: the text has more labels than the audio has frames; it adds nothing to a CTC loss"
            for utt_id in sorted(self.infeasible - self._told)
        ]
        unreadable = set(self.train.unreadable) | set(self.dev.unreadable if self.dev is not None else ())
        lines += [f"{problem}; left out" for problem in sorted(unreadable - self._told)]
        idle_adapters = set(idle(self.adapted_parts()))
        lines += sorted(idle_adapters - self._told)
        self._told |= self.infeasible | unreadable | idle_adapters
        return lines

    def adapted_parts(self) -> dict[str, PreTrainedModel | SpeechEncoder]:
        """The components that may carry adapters, by name."""
        return {"encoder": self.acoustic.encoder}

    def _ctc_loss(
        self, posteriors: tuple[Tensor, Tensor], labels: Sequence[Sequence[int]], utt_ids: Sequence[str]
    ) -> Tensor:
        result = ctc_loss(*posteriors, labels)
        self.infeasible.update(utt_ids[row] for row in result.infeasible)
        return result.total / max(result.num_labels, 1)

    def _score(self, dev: SpeechLoader, decoders: Mapping[str, Decoder]) -> dict[str, float]:
        """Dev error rate of each decoder, of words, or of characters in languages without spaces between words."""
        name = default_normalizer([self.recipe.language])
        counts = dict.fromkeys(decoders, ErrorCounts(0, 0, 0, 0))
        for batch in dev_batches(dev):
            for decoder, decode in decoders.items():
                for text, prediction in zip(batch.texts, decode(batch), strict=True):
                    counts[decoder] += counted_errors(name, text, prediction)
        if not any(count.reference_length for count in counts.values()):
            raise DataError("no dev utterance can be scored", remedy="check the files and texts of data.dev")
        rate = "cer" if name in WITHOUT_WORDS else "wer"
        return {f"{rate}_{decoder}": count.rate for decoder, count in counts.items()}


def loss_layers(model: AcousticNetwork, ctc: CTC) -> list[int]:
    """The encoder layers whose states the losses read: those with heads, then that of the auxiliary character head."""
    return [*model.layers, *([ctc.character_layer] if ctc.character_layer else [])]
