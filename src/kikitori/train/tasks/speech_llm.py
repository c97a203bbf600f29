"""Training the speech LLM: cross-entropy on the text positions, with CTC losses on the encoder beside it.

Both losses are per label (papers.md A2 and B2.1); EOS counts as a label of the cross-entropy. An earlier LLM layer may
have a cross-entropy too.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function
from transformers import PreTrainedModel

from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.errors import DataError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.model.adapters.lora import is_adapted, merged_copy, save_lora
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import max_positions, project
from kikitori.model.encoder import EncoderOutput, SpeechEncoder
from kikitori.model.folder import LoadedModel, save_model
from kikitori.model.speech_llm import SpeechLLM
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.length import Limits, max_labels, overrun
from kikitori.text.units import TokenizerUnits
from kikitori.train.losses.phones import PhoneLosses
from kikitori.train.recipe.adaptation import SpeechAdaptationRecipe
from kikitori.train.recipe.speech import SpeechLLMRecipe
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.cached_encoder import CachedEncoder
from kikitori.train.tasks.speech import AcousticTask
from kikitori.train.text_injection.drafts import Drafter
from kikitori.types import Utterance

AT_FIRST = 2000
"""Utterances, evenly spread, that say before the training how many labels there are in a second."""


class SpeechLLMTask(AcousticTask):
    """Trains a speech LLM; see `kikitori.train.tasks.base.Task`.

    Args:
        recipe: The run's recipe.
        model: The speech LLM.
        units: Label units of the LLM.
        characters: Label units of the auxiliary character head, if the recipe asks for one.
        train: Training speech.
        dev: Dev speech, or None.
        phone_losses: Of the phone heads, if the recipe asks for them.
        drafter: Of what the LLM reads beside the speech, if the model has a place for it.
        auxiliary_layer: LLM layer (1-based) that has a cross-entropy too; 0 for none.
        cached: The encoder with its outputs kept on disk, if the recipe asks for it.
        own_ctc_units: Label units of frozen CTC heads that write others than the LLM.

    Raises:
        DataError: The longest utterance does not fit into the LLM.
    """

    def __init__(
        self,
        recipe: SpeechLLMRecipe | SpeechAdaptationRecipe,
        model: SpeechLLM,
        units: TokenizerUnits,
        characters: TokenizerUnits | None,
        train: SpeechLoader,
        dev: SpeechLoader | None,
        phone_losses: PhoneLosses | None = None,
        drafter: Drafter | None = None,
        auxiliary_layer: int = 0,
        cached: CachedEncoder | None = None,
        own_ctc_units: TokenizerUnits | None = None,
    ) -> None:
        super().__init__(recipe, model.acoustic, units, characters, train, dev, phone_losses, cached, own_ctc_units)
        self.drafter = drafter
        self.speech_llm = model
        self.module["model"] = model
        self.auxiliary_layer = auxiliary_layer
        if auxiliary_layer:
            self.module["auxiliary_norm"] = nn.LayerNorm(model.bridge.llm_dim)
        self._check_longest()

    def loss(self, batch: SpeechBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy on the transcript and EOS, plus the weighted CTC losses.

        Raises:
            DataError: An utterance does not fit into the LLM.
        """
        encoded, labels = self.encode(batch, position), self.labels(batch, position)
        total, parts = self.ctc_losses(encoded, batch, labels)
        rows, layer = self.teacher_input(batch, encoded, labels), self.auxiliary_layer
        with record_function("LLM"):
            *early, last = self.speech_llm.target_states(rows, [layer] if layer else [])
            cross_entropy = self._cross_entropy(last, rows.next_labels)
            for states in early:
                auxiliary = self._cross_entropy(self.module["auxiliary_norm"](states), rows.next_labels)
                total, parts[f"text{layer}"] = total + auxiliary, auxiliary.item()
        positions = int(rows.speech_lengths.sum())
        parts = {"text": cross_entropy.item(), **parts, "positions_per_second": positions / batch.seconds}
        return total + cross_entropy, parts

    def teacher_input(self, batch: SpeechBatch, encoded: EncoderOutput, labels: list[list[int]]) -> AssembledInput:
        """The LLM's input with the transcripts in it.

        Raises:
            DataError: An utterance does not fit into the LLM.
        """
        drafts = self.drafts(encoded)
        with record_function("bridge"):
            rows = self.speech_llm.teacher_input(encoded, labels, drafts)
        counts = [len(row) for row in labels]
        prefixes = [length - count for length, count in zip(rows.lengths.tolist(), counts, strict=True)]
        self._check_room(batch, prefixes, counts)
        return rows

    def drafts(self, encoded: EncoderOutput) -> list[list[int]] | None:
        """What the LLM reads beside the speech."""
        if self.drafter is None:
            return None
        model = LoadedModel(self.speech_llm, self.units, self.trained_on, self.own_ctc_units)
        with record_function("drafts"):
            return self.drafter.of_speech(model, encoded)

    def evaluate(self) -> dict[str, float]:
        """Word error rates on dev: the LLM's greedy transcript, and the CTC head's."""
        if self.dev is None:
            return {}
        decoders = {"greedy": self.decode_llm}
        decoders |= {"ctc_greedy": self.decode_ctc} if self.acoustic.config.ctc_layers else {}
        return self._score(self.dev, decoders) | self.phone_error_rate()

    @torch.inference_mode()
    def decode_llm(self, batch: SpeechBatch) -> list[str]:
        """Greedy texts of a batch."""
        model, encoded = self.speech_llm, self.encode_dev(batch)
        decoder = model.decoder(encoded, self.drafts(encoded))
        rate = self.trained_on.labels_per_second
        limits = [max_labels(samples / SAMPLE_RATE, rate) for samples in batch.lengths.tolist()]
        self._check_room(batch, decoder.prefix_lengths.tolist(), limits)
        return [self.units.decode(best.labels) for (best,) in greedy(decoder, Limits(limits))]

    def component(self, parameter: str) -> str:
        """`llm`, `bridge` (and the interface with it), `encoder`, or `heads` of losses beside."""
        if parameter.startswith("model.llm."):
            return "llm"
        joint = parameter.startswith(("model.bridge.", "model.interface."))
        return "bridge" if joint else super().component(parameter)

    def adapted_parts(self) -> dict[str, PreTrainedModel | SpeechEncoder]:
        """The components that may carry adapters, by name."""
        return {**super().adapted_parts(), "llm": self.speech_llm.llm}

    def describe(self, batch: SpeechBatch) -> list[str]:
        """Size of a batch in seconds, frames and LLM positions, these as the bridge makes them now."""
        with torch.inference_mode():
            _, lengths = self.speech_llm.speech_prompt(self.encode(batch, BatchPosition(0, 0, 0.0)))
        positions = int(lengths.sum())
        labels = sum(len(self.units.encode(text)) + 1 for text in batch.texts)
        place = "LLM input" if self.speech_llm.config.interface == "prefix" else "LLM memory"
        return [
            *super().describe(batch),
            f"{place}: {positions} speech positions, {labels} loss labels; "
            f"{positions / batch.seconds:.2f} positions per second of speech",
        ]

    def export(self, directory: Path) -> None:
        """Writes the recogniser, adapters merged; the LLM's adapters also go into `adapter/` in PEFT's form."""
        model = self.speech_llm
        if is_adapted(model.llm):
            save_lora(directory / "adapter", model.llm)
        if is_adapted(model):
            llm = merged_copy(model.llm)
            model = SpeechLLM(self.speech_llm.config, acoustic=self.merged_acoustic(), llm=llm)
            model.bridge.load_state_dict(self.speech_llm.bridge.state_dict())
            model.interface.load_state_dict(self.speech_llm.interface.state_dict())
        save_model(directory, model, self.units, self.trained_on, self.own_ctc_units)
        if self.drafter is not None:
            self.drafter.save(directory)

    def _cross_entropy(self, states: Tensor, labels: Tensor) -> Tensor:
        """Per label, of hidden states (positions, llm_dim)."""
        logits = project(self.speech_llm.llm, states).float()
        return nn.functional.cross_entropy(logits, labels, label_smoothing=self.recipe.optim.label_smoothing)

    def _check_longest(self) -> None:
        """Refuses speech that cannot fit before any time is spent; what only the speech can tell shows in its batch."""
        longest, rows = _longest(self.train), self.train.utterances
        self._check_duration(longest, len(self.units.encode(longest.text or "")))
        if self.dev is not None:
            some = rows.take(np.arange(0, len(rows), -(-len(rows) // AT_FIRST)))
            rate, _ = self.rates_of(some).highest(some.durations, np.zeros(len(some), bool))
            longest = _longest(self.dev)
            self._check_duration(longest, max_labels(longest.duration, rate))

    def _check_duration(self, utterance: Utterance, labels: int) -> None:
        samples = torch.tensor([round(utterance.duration * SAMPLE_RATE)])
        prefixes = self.speech_llm.prefix_lengths(self.acoustic.encoder.output_lengths(samples))
        if prefixes is not None:
            self._check_fits(utterance.utt_id, utterance.duration, int(prefixes), labels)

    def _check_room(self, batch: SpeechBatch, prefixes: Sequence[int], labels: Sequence[int]) -> None:
        """Refuses a batch of which an utterance does not fit into the LLM."""
        seconds = [samples / SAMPLE_RATE for samples in batch.lengths.tolist()]
        for utterance in zip(batch.utt_ids, seconds, prefixes, labels, strict=True):
            self._check_fits(*utterance)

    def _check_fits(self, utt_id: str, seconds: float, prefix: int, labels: int) -> None:
        problem = overrun(seconds, prefix, labels, max_positions(self.speech_llm.llm))
        if problem is not None:
            remedy = "leave it out (in training with data.max_seconds)"
            if self.speech_llm.config.interface == "prefix":
                remedy += " or use a bridge with fewer positions a second"
            raise DataError(problem, where=utt_id, remedy=remedy)


def _longest(speech: SpeechLoader) -> Utterance:
    return speech.utterances[int(speech.utterances.durations.argmax())]
