"""Recipes: everything that decides a training run, as one strict YAML file.

Five tasks share the schema: `acoustic_model` (encoder + CTC), `language_model` (a causal LM on text), `speech_llm`
(encoder + bridge + LLM), `masked_prediction` (an encoder on speech without transcripts) and `adaptation` (a finished
speech LLM and a domain's speech or text; `kikitori adapt` writes its recipe). Sections that a task does not use must be
absent; `settings.py`, `components.py` and `masked_settings.py` describe them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.io.config import load_config
from kikitori.train.recipe.components import CTC, LLM, Bridge, Encoder, Lora
from kikitori.train.recipe.masked import Masks, Targets
from kikitori.train.recipe.settings import (
    STRICT,
    Adapt,
    Augment,
    Count,
    Denoising,
    Hold,
    ManifestRef,
    Optim,
    Prompt,
    Replay,
    Run,
    SpeechData,
    TextData,
    Units,
)

MASKED = ("targets", "masks")
"""Sections of the task `masked_prediction` alone."""

ADAPTATION = ("adapt", "lora", "replay", "hold", "report")
"""Sections of the task `adaptation` alone."""


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A training run.

    Attributes:
        task: What is trained.
        optim: Optimiser and schedule.
        run: Length, precision and bookkeeping.
        seed: Decides initial weights, order and augmentation.
        data_root: Folder that `data` and `text` paths are relative to.
        language: Language of the transcripts; it picks the normalizer of the dev scores.
        units: Label units, of all tasks but `masked_prediction`.
        data: Speech, transcribed (`acoustic_model`, `speech_llm`, `adaptation` to speech) or not (`masked_prediction`).
        text: Text (`language_model`, `adaptation` to text; also what units are trained on).
        augment: Augmentation.
        encoder: Speech encoder.
        bridge: Bridge.
        interface: How the LLM gets at the speech: `prefix` in its input, or by attention of every layer to the bridge's
            output, `merged_attention` or `cross_attention`. These two leave a pre-trained LLM as it is at first;
            with an LLM from scratch they start open, and `cross_attention` is then an AED model.
        llm: LLM.
        ctc: CTC losses.
        targets: What `masked_prediction` predicts.
        masks: What it hides.
        prompt: Text around the speech.
        denoising: Reading practice for a `language_model`, or an `adaptation` to text.
        adapt: What an `adaptation` starts from.
        lora: Its LoRA on the LLM.
        replay: Data of the old domain that it mixes in.
        hold: Its penalty on leaving the base.
        report: Manifests that base and adapted recogniser are measured on at its end, by name of the side (`target`,
            `source`, and others).
    """

    task: Literal["acoustic_model", "language_model", "speech_llm", "masked_prediction", "adaptation"]
    optim: Optim
    run: Run
    seed: Count = 1
    data_root: str = "."
    language: str = "en"
    units: Units | None = None
    data: SpeechData | None = None
    text: TextData | None = None
    augment: Augment = Field(default_factory=Augment)
    encoder: Encoder | None = None
    bridge: Bridge | None = None
    interface: Literal["prefix", "merged_attention", "cross_attention"] = "prefix"
    llm: LLM | None = None
    ctc: CTC = Field(default_factory=CTC)
    targets: Targets | None = None
    masks: Masks | None = None
    prompt: Prompt = Field(default_factory=Prompt)
    denoising: Denoising | None = None
    adapt: Adapt | None = None
    lora: Lora | None = None
    replay: Replay | None = None
    hold: Hold | None = None
    report: dict[str, list[ManifestRef]] | None = None

    def __post_init__(self) -> None:
        """Checks that the sections fit the task."""
        needed = {
            "acoustic_model": ("units", "data", "encoder"),
            "language_model": ("units", "text", "llm"),
            "speech_llm": ("units", "data", "encoder", "bridge", "llm"),
            "masked_prediction": ("data", "encoder", "targets", "masks"),
            "adaptation": ("units", "adapt"),
        }[self.task]
        unused = {
            "acoustic_model": ("bridge", "llm", "denoising", *MASKED, *ADAPTATION),
            "language_model": ("data", "encoder", "bridge", *MASKED, *ADAPTATION),
            "speech_llm": ("denoising", *MASKED, *ADAPTATION),
            "masked_prediction": ("units", "text", "bridge", "llm", "denoising", *ADAPTATION),
            "adaptation": ("encoder", "bridge", "llm", *MASKED),
        }[self.task]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"task '{self.task}' needs the section '{name}'")
        for name in unused:
            if getattr(self, name) is not None:
                raise ValueError(f"task '{self.task}' does not use the section '{name}'")
        if self.task == "acoustic_model" and not self.ctc.weights:
            raise ValueError("task 'acoustic_model' needs ctc.weights")
        if self.task == "masked_prediction" and self.ctc != CTC():
            raise ValueError("task 'masked_prediction' has no CTC heads; leave out the section 'ctc'")
        if self.bridge is not None and self.bridge.kind == "ctc_compress":
            layer = self.bridge.ctc_layer or max(self.ctc.weights, default=0)
            if self.ctc.weights.get(layer, 0.0) <= 0.0:  # a head that nothing trains hears nothing
                of_layer = f" for layer {layer}" if layer else ""
                raise ValueError(f"bridge.kind 'ctc_compress' needs a weight above 0{of_layer} in ctc.weights")
        if self.ctc.policy == "frozen" and (self.encoder is None or self.encoder.policy != "frozen"):
            raise ValueError(
                "ctc.policy 'frozen' needs encoder.policy 'frozen'; heads cannot follow an encoder that moves"
            )
        if self.bridge is not None and self.bridge.show_phones and self.ctc.phones is None:
            raise ValueError("bridge.show_phones needs ctc.phones")
        practises = self.task == "language_model" and self.denoising is not None and self.denoising.lexicon is not None
        if practises and self.denoising is not None and self.denoising.ctc is None:
            raise ValueError("denoising.lexicon needs denoising.ctc, a run with phone heads")
        if self.prompt.draft is not None and self.task != "speech_llm" and not practises:
            raise ValueError("prompt.draft is for a speech_llm, or reading practice with denoising.lexicon")
        if self.task != "speech_llm" and self.interface != "prefix":
            raise ValueError(f"task '{self.task}' does not use the interface '{self.interface}'")
        if self.task != "speech_llm" and self.llm is not None and self.llm.auxiliary_layer:
            raise ValueError(f"task '{self.task}' does not use llm.auxiliary_layer")
        if self.units is not None and self.units.kind == "llm" and (self.llm is None or self.llm.init is None):
            raise ValueError("units.kind 'llm' needs llm.init")
        if self.adapt is not None and self.units is not None:
            self._check_adaptation(self.adapt.model, self.adapt.components, self.units)

    def _check_adaptation(self, base: str, components: Sequence[str], units: Units) -> None:
        if units.path != base:
            raise ValueError("the units of an adaptation are its base's: units.kind 'run', units.path as adapt.model")
        if (self.data is None) == (self.text is None):
            raise ValueError("task 'adaptation' needs either 'data' or 'text'")
        if self.text is not None and components != ["llm"]:
            raise ValueError("text adapts the LLM alone; leave adapt.components at [llm]")
        if self.denoising is not None and self.text is None:
            raise ValueError("denoising is for text")
        for name in ("lora", "hold"):
            if getattr(self, name) is not None and "llm" not in components:
                raise ValueError(f"{name} needs 'llm' among adapt.components")
        if self.ctc.weights and "encoder" not in components:
            raise ValueError("ctc.weights need 'encoder' among adapt.components")


def load_recipe(path: Path | str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """Reads a recipe with overrides applied.

    Raises:
        ConfigError: A key is unknown, has the wrong type, or does not fit the task.
    """
    recipe = load_config(Recipe, path, overrides)
    if not Path(recipe.data_root).is_dir():
        raise ConfigError(
            f"no such folder '{recipe.data_root}'",
            where=f"{path}: data_root",
            remedy="set it with data_root=FOLDER (relative to where you start kikitori)",
        )
    return recipe
