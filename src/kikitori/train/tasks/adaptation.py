"""Adapting a finished speech LLM to a domain (papers.md A2: LoRA on the LLM's attention, the rest frozen).

From the domain's speech, or from its text alone; the old domain is kept by replay (old data among the new) and by KL
regularisation to the base. What is exported is an adapter folder, not a recogniser.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.autograd.profiler import record_function

from kikitori.data.speech import SpeechBatch, SpeechLoader
from kikitori.errors import ConfigError, ModelError
from kikitori.model.adapters.folder import save_adapter
from kikitori.model.adapters.info import AdapterInfo, Fingerprint
from kikitori.model.adapters.lora import Lora, attach_lora
from kikitori.model.encoder import freeze
from kikitori.model.speech_llm import SpeechLLM
from kikitori.text.units import TokenizerUnits
from kikitori.train.recipe.adaptation import Adapt, Replay, SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from kikitori.train.tasks.text import TextBatch, TextTask
from kikitori.train.text_injection.drafts import Drafter
from kikitori.train.text_injection.prompts import PromptSimulator
from kikitori.types import TrainedOn

WHOLE = ("model.llm", "model.bridge", "model.interface", "model.acoustic")
"""Parts that may be fine-tuned fully."""
REPLAY = 1
"""Tells the random numbers of the replay from those of the batches."""


@dataclass(frozen=True)
class Base:
    """What an adaptation starts from, and what its adapter is for."""

    name: str
    fingerprint: Fingerprint
    trained_on: TrainedOn

    def info(self, components: Sequence[Any], trained_on: TrainedOn) -> AdapterInfo:
        """What the adapter folder says of itself."""
        return AdapterInfo(
            format=1,
            base_name=self.name,
            base=self.fingerprint,
            components=list(components),
            labels_per_second=trained_on.labels_per_second,
            max_seconds=trained_on.max_seconds,
        )


class Adapting(nn.ModuleDict):
    """A model of which most is frozen, and stays in evaluation mode: no dropout, no batch-norm drift."""

    def train(self, mode: bool = True) -> Self:
        """Puts what learns into training mode: the dropout of LoRA, and whatever is fine-tuned fully."""
        super().train(False)
        for name, part in self.named_modules():
            if name.endswith("lora_dropout") or (name in WHOLE and _is_fine_tuned(part)):
                part.train(mode)
        return self


def set_components(model: SpeechLLM, settings: Adapt, lora: Lora, ctc_layers: Sequence[int]) -> None:
    """Freezes the recogniser but for what is adapted.

    Raises:
        ConfigError: LoRA finds no layer of such a name; it lists those that there are.
    """
    model.requires_grad_(False)
    if "encoder" in settings.components:
        freeze(model.acoustic.encoder, "conv_front_end")
        for layer in ctc_layers:
            model.acoustic.ctc_heads[str(layer)].requires_grad_(True)
    if "bridge" in settings.components:
        model.bridge.requires_grad_(True)
        model.interface.requires_grad_(True)
    if "whole_llm" in settings.components:
        model.llm.requires_grad_(True)
    if "llm" in settings.components:
        try:
            model.llm = attach_lora(model.llm, lora)
        except ModelError as error:
            raise ConfigError(error.what, where="lora.targets", remedy="set it to names of linear layers") from None


def with_replay(indices: Sequence[int], num_new: int, fraction: float, seed: Sequence[int]) -> list[int]:
    """The indices of an epoch: all of the new domain, and so many of the old that these make up `fraction`.

    Indices from `num_new` on belong to the old domain. Nothing is drawn twice before everything was drawn once.
    """
    new, old = [i for i in indices if i < num_new], [i for i in indices if i >= num_new]
    wanted = round(len(new) * fraction / (1.0 - fraction)) if old else 0
    generator = np.random.default_rng([*seed, REPLAY])
    drawn: list[int] = []
    while len(drawn) < wanted:
        drawn += generator.permutation(old)[: wanted - len(drawn)].tolist()
    return new + drawn


def divergence(adapted: Tensor, base: Tensor) -> Tensor:
    """KL(base ‖ adapted) in nats, the mean over the rows of two tables of logits (positions, vocab)."""
    expected, found = base.float().log_softmax(dim=1), adapted.float().log_softmax(dim=1)
    return nn.functional.kl_div(found, expected, reduction="batchmean", log_target=True)


class AdaptationTask(SpeechLLMTask):
    """Adapts to transcribed speech; see `kikitori.train.tasks.base.Task`.

    The model is the base's network after `set_components`. Training speech is that of the new domain (`num_new`), then
    what may be replayed of the old one; drafts come in if the model has a place for them.
    """

    def __init__(
        self,
        recipe: SpeechAdaptationRecipe,
        base: Base,
        model: SpeechLLM,
        units: TokenizerUnits,
        train: SpeechLoader,
        num_new: int,
        dev: SpeechLoader | None,
        drafter: Drafter | None = None,
        own_ctc_units: TokenizerUnits | None = None,
    ) -> None:
        self.adaptation, self.base, self.num_new = recipe, base, num_new
        super().__init__(recipe, model, units, None, train, dev, drafter=drafter, own_ctc_units=own_ctc_units)
        self.module = Adapting({"model": model})

    def indices(self, epoch: int) -> NDArray[np.int64]:
        """The new domain's utterances and this epoch's draw of old ones."""
        every = super().indices(epoch).tolist()
        return np.array(_with_replay(every, self.num_new, self.adaptation.replay, [self.recipe.seed, epoch]))

    def loss(self, batch: SpeechBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy on the transcript and EOS, plus the weighted CTC losses and the divergence from the base.

        Raises:
            DataError: An utterance does not fit into the LLM.
        """
        encoded, labels = self.encode(batch, position), self.labels(batch, position)
        total, parts = self.ctc_losses(encoded, batch, labels)
        rows = self.teacher_input(batch, encoded, labels)
        with record_function("LLM"):
            logits = self.speech_llm.target_logits(rows)
        smoothing = self.recipe.optim.label_smoothing
        cross_entropy = nn.functional.cross_entropy(logits.float(), rows.next_labels, label_smoothing=smoothing)
        total, parts = total + cross_entropy, {"text": cross_entropy.item(), **parts}
        penalty = self.adaptation.kl_to_base
        if penalty is not None:
            with torch.no_grad(), self.speech_llm.llm.disable_adapter():
                expected = self.speech_llm.target_logits(rows)
            kl = divergence(logits, expected)
            total, parts = total + penalty.weight * kl, {**parts, "kl": kl.item()}
        return total, parts

    def export(self, directory: Path) -> None:
        """Writes the adapter."""
        components = self.adaptation.adapt.components
        save_adapter(directory, self.speech_llm, self.base.info(components, self.trained_on))

    @property
    def trained_on(self) -> TrainedOn:
        """What decoding must know of the speech that base and adapter have seen."""
        before, seen = self.base.trained_on, super().trained_on
        return replace(
            before,
            labels_per_second=max(before.labels_per_second, seen.labels_per_second),
            max_seconds=max(before.max_seconds, seen.max_seconds),
        )


class TextAdaptationTask(TextTask):
    """Adapts to text alone, with simulated CTC posteriors in place of speech; see `kikitori.train.tasks.base.Task`.

    Of the base's network after `set_components` only the LLM is used. Training sentences are those of the new domain
    (`num_new`), then what may be replayed of the old one, as labels.
    """

    def __init__(
        self,
        recipe: TextAdaptationRecipe,
        base: Base,
        model: SpeechLLM,
        units: TokenizerUnits,
        train: Sequence[Sequence[int]],
        num_new: int,
        dev: Sequence[Sequence[int]],
        simulator: PromptSimulator | None = None,
    ) -> None:
        super().__init__(recipe, model.llm, units, train, dev, simulator, model.config.prompt)
        self.adaptation, self.base, self.speech_llm, self.num_new = recipe, base, model, num_new
        self.module = Adapting({"llm": model.llm})

    def indices(self, epoch: int) -> list[int]:
        """The new domain's sentences and this epoch's draw of old ones."""
        return _with_replay(super().indices(epoch), self.num_new, self.adaptation.replay, [self.recipe.seed, epoch])

    def loss(self, batch: TextBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:
        """Cross-entropy per label, EOS included, and the divergence from the base."""
        penalty = self.adaptation.kl_to_base
        if penalty is None:
            return super().loss(batch, position)
        logits, next_labels, has_prompt = self.label_logits(batch)
        with torch.no_grad(), self.speech_llm.llm.disable_adapter():
            expected, _, _ = self.label_logits(batch)
        loss, parts = self.text_loss(logits, next_labels, has_prompt)
        kl = divergence(logits, expected)
        return loss + penalty.weight * kl, {**parts, "kl": kl.item()}

    def export(self, directory: Path) -> None:
        """Writes the adapter."""
        save_adapter(directory, self.speech_llm, self.base.info(["llm"], self.base.trained_on))


def _with_replay(indices: Sequence[int], num_new: int, replay: Replay | None, seed: Sequence[int]) -> list[int]:
    return list(indices) if replay is None else with_replay(indices, num_new, replay.share, seed)


def _is_fine_tuned(part: nn.Module) -> bool:
    return any(parameter.requires_grad and "lora_" not in name for name, parameter in part.named_parameters())
