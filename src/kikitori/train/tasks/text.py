"""Training a causal language model on text, with optional text injection: simulated CTC posteriors as prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kikitori.data.batching import epoch_batches
from kikitori.data.speech import SpeechLoader
from kikitori.errors import counted
from kikitori.model.adapters.lora import idle, merged_copy
from kikitori.model.decoder.assemble import assemble
from kikitori.model.decoder.llm import embed, embed_mixture, forward, project
from kikitori.model.folder import save_network
from kikitori.text.bpe_dropout import BPEDropout
from kikitori.text.prompt import Prompt
from kikitori.text.units import TokenizerUnits
from kikitori.train.loop.provenance import digest
from kikitori.train.recipe.adaptation import TextAdaptationRecipe
from kikitori.train.recipe.language_model import LanguageModelRecipe
from kikitori.train.tasks.base import BatchPosition
from kikitori.train.text_injection.prompts import NO_PROMPT, PromptSimulator, SimulatedPrompt, stack

SEGMENTATION = 1
"""Tells the random numbers of BPE dropout from those of the prompts."""


@dataclass(frozen=True)
class TextBatch:
    """Sentences as labels, and for each the prompt shown before it (`NO_PROMPT`: none)."""

    labels: tuple[Sequence[int], ...]
    prompts: tuple[SimulatedPrompt, ...]


class TextTask:
    """Trains an LLM on text; see `kikitori.train.tasks.base.Task`.

    Sentences are labels, those of `dev` held out; before some of them a simulator puts posteriors in a prompt.
    """

    def __init__(
        self,
        recipe: LanguageModelRecipe | TextAdaptationRecipe,
        llm: PreTrainedModel,
        units: TokenizerUnits,
        train: Sequence[Sequence[int]],
        dev: Sequence[Sequence[int]],
        simulator: PromptSimulator | None,
        prompt: Prompt,
    ) -> None:
        self.recipe, self.text, self.llm, self.units = recipe, recipe.text, llm, units
        self.sentences, self.dev, self.simulator, self.prompt = train, dev, simulator, prompt
        self.module = nn.ModuleDict({"llm": llm})
        rate = recipe.units.bpe_dropout
        self.sampled_units = BPEDropout(units, rate) if rate else None

    @property
    def speech(self) -> Sequence[SpeechLoader]:
        """None."""
        return ()

    def indices(self, epoch: int) -> list[int]:  # noqa: ARG002
        """The sentences of an epoch: all of them."""
        return list(range(len(self.sentences)))

    def batches(self, epoch: int) -> Sequence[list[int]]:
        """Sentences of similar length share a batch."""
        chosen = self.indices(epoch)
        batches = epoch_batches(
            [len(self.sentences[i]) for i in chosen],
            batch_seconds=float(self.text.batch_labels),
            max_batch_size=self.text.batch_labels,
            num_buckets=12,
            seed=self.recipe.seed,
            epoch=epoch,
        )
        return batches.of(np.array(chosen))

    def load(self, indices: list[int], epoch: int) -> TextBatch:
        """Sentences and their prompts."""
        labels = tuple(self._labels(i, epoch) for i in indices)
        prompts = (
            self._prompt(sentence, np.random.default_rng([self.recipe.seed, epoch, index]))
            for index, sentence in zip(indices, labels, strict=True)
        )
        return TextBatch(labels, tuple(prompts))

    def loss(self, batch: TextBatch, position: BatchPosition) -> tuple[Tensor, dict[str, float]]:  # noqa: ARG002
        """Cross-entropy per label, EOS included; those after a prompt are logged apart."""
        return self.text_loss(*self.label_logits(batch))

    def text_loss(self, logits: Tensor, next_labels: Tensor, has_prompt: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss of what `label_logits` gave, and its parts."""
        losses = _losses(logits, next_labels, self.recipe.optim.label_smoothing)
        parts = {}
        if bool((~has_prompt).any()):
            parts["text"] = losses[~has_prompt].mean().item()
        if bool(has_prompt.any()):
            parts["text_injection"] = losses[has_prompt].mean().item()
        return losses.mean(), parts

    @torch.inference_mode()
    def evaluate(self) -> dict[str, float]:
        """Perplexity per label (EOS included) of the held-out sentences, without prompts."""
        if not self.dev:
            return {}
        total, count = 0.0, 0
        order = sorted(self.dev, key=len)
        for start in range(0, len(order), 32):
            chunk = tuple(order[start : start + 32])
            logits, next_labels, _ = self.label_logits(TextBatch(chunk, (NO_PROMPT,) * len(chunk)))
            losses = _losses(logits, next_labels)
            total, count = total + float(losses.sum()), count + losses.numel()
        return {"perplexity": exp(total / count)}

    def data_digest(self) -> str:
        """The training sentences in labels."""
        return digest(list(sentence) for sentence in self.sentences)

    def data_counts(self) -> dict[str, int]:
        """Sentences of an epoch."""
        return {"sentences": len(self.sentences)}

    def component(self, parameter: str) -> str:  # noqa: ARG002
        """There is only the LLM."""
        return "llm"

    def lr_factor(self, parameter: str) -> float:  # noqa: ARG002
        """One factor on the learning rate for all."""
        settings = self.recipe.trainable.get("llm")
        return 1.0 if settings is None else settings.lr_factor

    def unfreeze_at(self, parameter: str) -> int:  # noqa: ARG002
        """All learns from one step on."""
        settings = self.recipe.trainable.get("llm")
        return 0 if settings is None else settings.unfreeze_at

    def export(self, directory: Path) -> None:
        """Writes the language model with its units, adapters merged."""
        save_network(directory, merged_copy(self.llm))
        self.units.save(directory)

    def size(self, indices: list[int]) -> float:
        """Labels of a batch, padding included."""
        return float(max(len(self.sentences[i]) for i in indices) * len(indices))

    def describe(self, batch: TextBatch) -> list[str]:
        """Size of a batch in labels."""
        labels, simulated = sum(map(len, batch.labels)), sum(map(len, batch.prompts))
        return [
            f"largest batch: {counted(len(batch.labels), 'sentence')}, {labels} labels, {simulated} simulated positions"
        ]

    def remarks(self) -> list[str]:
        """Adapters that do nothing."""
        return idle({"llm": self.llm})

    def _labels(self, index: int, epoch: int) -> Sequence[int]:
        """A training sentence; with `units.bpe_dropout` in a segmentation of its own for each epoch."""
        sentence = self.sentences[index]
        if self.sampled_units is None:
            return sentence
        generator = np.random.default_rng([self.recipe.seed, epoch, index, SEGMENTATION])
        return self.sampled_units.encode(self.units.decode(sentence), generator)[: self.text.max_labels]

    def _prompt(self, sentence: Sequence[int], generator: np.random.Generator) -> SimulatedPrompt:
        settings = self.recipe.text_injection
        if settings is None or self.simulator is None or generator.random() >= settings.share:
            return NO_PROMPT
        return self.simulator.simulate(sentence, generator)

    def label_logits(self, batch: TextBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (positions, vocab), the next labels that they predict, and whether these follow a prompt."""
        shown = stack(batch.prompts)
        lengths = torch.tensor([len(prompt) for prompt in batch.prompts], device=self.llm.device)
        drafts = [prompt.draft for prompt in batch.prompts]
        embeds = embed_mixture(self.llm, torch.from_numpy(shown.labels), torch.from_numpy(shown.weights))
        rows = assemble(lambda labels: embed(self.llm, labels), self.prompt, embeds, lengths, batch.labels, drafts)
        logits = project(self.llm, forward(self.llm, rows.embeds, rows.lengths)[rows.target_positions])
        return logits, rows.next_labels, (lengths > 0)[rows.target_positions[0]]


def _losses(logits: Tensor, next_labels: Tensor, smoothing: float = 0.0) -> Tensor:
    return nn.functional.cross_entropy(logits.float(), next_labels, reduction="none", label_smoothing=smoothing)
