"""Recipes: everything that decides a training run, as one strict YAML file.

Three tasks share the schema: `acoustic_model` (encoder + CTC), `language_model` (a causal LM on text) and `speech_llm`
(encoder + bridge + LLM). Sections that a task does not use must be absent; `settings.py` and `components.py`
describe them.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.config import load_config
from kikitori.errors import ConfigError
from kikitori.train.components import LLM, Bridge, Encoder
from kikitori.train.settings import (
    CTC,
    STRICT,
    Augment,
    Count,
    Denoising,
    Optim,
    Prompt,
    Run,
    SpeechData,
    TextData,
    Units,
)


@dataclass(frozen=True, config=STRICT)
class Recipe:
    """A training run.

    Attributes:
        task: What is trained.
        units: Label units.
        optim: Optimiser and schedule.
        run: Length, precision and bookkeeping.
        seed: Decides initial weights, order and augmentation.
        data_root: Folder that `data` and `text` paths are relative to.
        language: Language of the transcripts; it picks the normalizer of the dev scores.
        data: Transcribed speech (`acoustic_model`, `speech_llm`).
        text: Text (`language_model`; also what units are trained on).
        augment: Augmentation.
        encoder: Speech encoder.
        bridge: Bridge.
        interface: How the LLM gets at the speech: `prefix` in its input, or by attention of every layer to the bridge's
            output, `merged_attention` or `cross_attention`. These two leave a pre-trained LLM as it is at first;
            with an LLM from scratch they start open, and `cross_attention` is then an AED model.
        llm: LLM.
        ctc: CTC losses.
        prompt: Text around the speech.
        denoising: Reading practice for a `language_model`.
    """

    task: Literal["acoustic_model", "language_model", "speech_llm"]
    units: Units
    optim: Optim
    run: Run
    seed: Count = 1
    data_root: str = "."
    language: str = "en"
    data: SpeechData | None = None
    text: TextData | None = None
    augment: Augment = Field(default_factory=Augment)
    encoder: Encoder | None = None
    bridge: Bridge | None = None
    interface: Literal["prefix", "merged_attention", "cross_attention"] = "prefix"
    llm: LLM | None = None
    ctc: CTC = Field(default_factory=CTC)
    prompt: Prompt = Field(default_factory=Prompt)
    denoising: Denoising | None = None

    def __post_init__(self) -> None:
        """Checks that the sections fit the task."""
        needed = {
            "acoustic_model": ("data", "encoder"),
            "language_model": ("text", "llm"),
            "speech_llm": ("data", "encoder", "bridge", "llm"),
        }[self.task]
        unused = {
            "acoustic_model": ("bridge", "llm", "denoising"),
            "language_model": ("data", "encoder", "bridge"),
            "speech_llm": ("denoising",),
        }[self.task]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(f"task '{self.task}' needs the section '{name}'")
        for name in unused:
            if getattr(self, name) is not None:
                raise ValueError(f"task '{self.task}' does not use the section '{name}'")
        if self.task == "acoustic_model" and not self.ctc.weights:
            raise ValueError("task 'acoustic_model' needs ctc.weights")
        if self.bridge is not None and self.bridge.kind == "ctc_compress":
            layer = self.bridge.ctc_layer or max(self.ctc.weights, default=0)
            if self.ctc.weights.get(layer, 0.0) <= 0.0:  # a head that nothing trains hears nothing
                of_layer = f" for layer {layer}" if layer else ""
                raise ValueError(f"bridge.kind 'ctc_compress' needs a weight above 0{of_layer} in ctc.weights")
        if self.task != "speech_llm" and self.interface != "prefix":
            raise ValueError(f"task '{self.task}' does not use the interface '{self.interface}'")
        if self.task != "speech_llm" and self.llm is not None and self.llm.auxiliary_layer:
            raise ValueError(f"task '{self.task}' does not use llm.auxiliary_layer")
        if self.units.kind == "llm" and (self.llm is None or self.llm.init is None):
            raise ValueError("units.kind 'llm' needs llm.init")


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
