"""Recipes for recognisers: acoustic models with CTC, and speech LLMs."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.train.recipe.base import SpeechTrainingRecipe
from kikitori.train.recipe.components import CTC, LLM, Bridge, Encoder, Prompt, Trainable
from kikitori.train.recipe.data import TextData, Units
from kikitori.train.recipe.types import STRICT


@dataclass(frozen=True, kw_only=True, config=STRICT)
class AcousticModelRecipe(SpeechTrainingRecipe):
    """An encoder with CTC heads.

    Attributes:
        text: Text that the units are trained on; None takes the transcripts that are trained on.
    """

    task: Literal["acoustic_model"]
    units: Units
    text: TextData | None = None
    encoder: Encoder
    ctc: CTC = Field(default_factory=CTC)

    def __post_init__(self) -> None:
        """Checks that there is a CTC loss, and that the sections fit each other."""
        if not self.ctc.weights:
            raise ValueError("task 'acoustic_model' needs ctc.weights")
        if self.units.kind == "llm":
            raise ValueError("units.kind 'llm' needs llm.init")
        _check_frozen_heads(self.ctc, self.encoder)

    @property
    def trainable(self) -> dict[str, Trainable]:
        """The encoder."""
        return {"encoder": self.encoder}


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SpeechLLMRecipe(SpeechTrainingRecipe):
    """An encoder, a bridge and an LLM.

    Attributes:
        text: Text that the units are trained on; None takes the transcripts that are trained on.
        interface: How the LLM gets at the speech: `prefix` in its input, or by attention of every layer to the bridge's
            output, `merged_attention` or `cross_attention`. These two leave a pre-trained LLM as it is at first;
            with an LLM from scratch they start open, and `cross_attention` is then an AED model.
    """

    task: Literal["speech_llm"]
    units: Units
    text: TextData | None = None
    encoder: Encoder
    bridge: Bridge
    interface: Literal["prefix", "merged_attention", "cross_attention"] = "prefix"
    llm: LLM
    ctc: CTC = Field(default_factory=CTC)
    prompt: Prompt = Field(default_factory=Prompt)

    def __post_init__(self) -> None:
        """Checks that the bridge has the heads that it reads, and that the sections fit each other."""
        if self.bridge.kind == "ctc_compress":
            layer = max(self.ctc.weights, default=0)
            learnt = self.ctc.policy == "frozen" or self.ctc.weights.get(layer, 0.0) > 0.0
            if not layer or not learnt:  # a head that nothing trains tells nothing
                of_layer = f" for layer {layer}" if layer else ""
                raise ValueError(f"bridge.kind 'ctc_compress' needs a weight above 0{of_layer} in ctc.weights")
        if self.bridge.show_phones and self.ctc.phones is None:
            raise ValueError("bridge.show_phones needs ctc.phones")
        if self.units.kind == "llm" and self.llm.init is None:
            raise ValueError("units.kind 'llm' needs llm.init")
        _check_frozen_heads(self.ctc, self.encoder)

    @property
    def trainable(self) -> dict[str, Trainable]:
        """Encoder, bridge (with the interface) and LLM."""
        return {"encoder": self.encoder, "bridge": self.bridge, "llm": self.llm}


def _check_frozen_heads(ctc: CTC, encoder: Encoder) -> None:
    if ctc.policy == "frozen" and encoder.policy != "frozen":
        raise ValueError("ctc.policy 'frozen' needs encoder.policy 'frozen'; heads cannot follow an encoder that moves")
