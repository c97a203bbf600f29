"""Recipes for adaptations: a finished speech LLM, and the speech or the text of a domain.

`kikitori adapt` writes such a recipe; `kikitori train` takes it from a file.
"""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.model.adapters.lora import Lora
from kikitori.train.recipe.base import SpeechTrainingRecipe, TrainingRecipe
from kikitori.train.recipe.components import CTC
from kikitori.train.recipe.data import Augment, ManifestRef, TextData, Units
from kikitori.train.recipe.language_model import TextInjection
from kikitori.train.recipe.types import STRICT, ModelPath, Positive, ProperFraction
from kikitori.types import Component


@dataclass(frozen=True, config=STRICT)
class Adapt:
    """Adaptation of a finished speech LLM to a domain (papers.md A2).

    Attributes:
        components: What is adapted, the rest is frozen: the `llm` by LoRA; the `bridge` (with the interface), and the
            `encoder` (all but its convolutional front end, with the CTC heads that `ctc.weights` names), by full
            fine-tuning. `whole_llm` fine-tunes the LLM fully instead; its adapter is as large as the LLM.
    """

    model: ModelPath
    components: list[Component] = Field(default_factory=lambda: list[Component](["llm"]))

    def __post_init__(self) -> None:
        """Checks that something is adapted, and once."""
        if not self.components or len(set(self.components)) < len(self.components):
            raise ValueError("components are llm or whole_llm, bridge and encoder, each at most once")
        if {"llm", "whole_llm"} <= set(self.components):
            raise ValueError("components llm (LoRA) and whole_llm exclude each other")


@dataclass(frozen=True, config=STRICT)
class Replay:
    """Old data among the new, so that an adapted recogniser keeps its domain.

    Attributes:
        train: Manifests of the old domain; of a text adaptation, their transcripts.
        share: Their fraction of each epoch; utterances (or sentences) are drawn anew every time.
    """

    train: list[ManifestRef]
    share: ProperFraction = 0.25


@dataclass(frozen=True, config=STRICT)
class KLPenalty:
    """KL regularisation to the base model: KL(base ‖ adapted) of the LLM's next label, in nats, on training batches.

    It is added to the cross-entropy, times its weight.
    """

    weight: Positive = 1.0


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AdaptationRecipe(TrainingRecipe):
    """What adaptations to speech and to text share.

    Attributes:
        replay: Data of the old domain to mix in.
        kl_to_base: Penalty on leaving the base.
        report: Manifests that base and adapted recogniser are measured on at the end, by name of the side (`target`,
            `source`, and others).
    """

    task: Literal["adaptation"]
    units: Units
    adapt: Adapt
    augment: Augment = Field(default_factory=Augment)
    lora: Lora | None = None
    replay: Replay | None = None
    kl_to_base: KLPenalty | None = None
    report: dict[str, list[ManifestRef]] | None = None

    def __post_init__(self) -> None:
        """Checks that the units are the base's, and that all settings are used."""
        if self.units.path != self.adapt.model:
            raise ValueError("the units of an adaptation are its base's: units.kind 'run', units.path as adapt.model")
        for name in ("lora", "kl_to_base"):
            if getattr(self, name) is not None and "llm" not in self.adapt.components:
                raise ValueError(f"{name} needs 'llm' among adapt.components")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpeechAdaptationRecipe(AdaptationRecipe, SpeechTrainingRecipe):
    """Adaptation to transcribed speech, with CTC losses where the encoder is adapted."""

    ctc: CTC = Field(default_factory=CTC)

    def __post_init__(self) -> None:
        """Checks that CTC losses have an encoder to train."""
        super().__post_init__()
        if self.ctc.weights and "encoder" not in self.adapt.components:
            raise ValueError("ctc.weights need 'encoder' among adapt.components")
        if self.ctc.policy == "frozen":
            raise ValueError("ctc.policy 'frozen' is not for an adaptation; leave out the weight of the head")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TextAdaptationRecipe(AdaptationRecipe):
    """Adaptation to text alone, with simulated CTC posteriors in place of speech.

    Attributes:
        text_injection: How the posteriors are simulated; None shows the LLM text alone.
    """

    text: TextData
    text_injection: TextInjection | None = None

    def __post_init__(self) -> None:
        """Checks that the LLM alone is adapted."""
        super().__post_init__()
        if self.adapt.components != ["llm"]:
            raise ValueError("text adapts the LLM alone; leave adapt.components at [llm]")


Adaptation = SpeechAdaptationRecipe | TextAdaptationRecipe
