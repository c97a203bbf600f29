"""Recipes for language models, with text injection: text-only training with simulated CTC posteriors."""

from typing import Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.train.recipe.base import TrainingRecipe
from kikitori.train.recipe.components import LLM, Prompt, Trainable
from kikitori.train.recipe.data import Augment, ManifestRef, TextData, Units
from kikitori.train.recipe.types import STRICT, Fraction, ModelPath


@dataclass(frozen=True, config=STRICT)
class TextInjection:
    """Text-only training with simulated CTC posteriors in place of speech.

    A fraction of the sentences is preceded by a prompt of label embeddings like those that a CTC head gives
    (`bridge.show_ctc`). An LLM that starts a speech LLM from here has learnt to read such prompts and to correct their
    errors. With `ctc` and `speech` the prompts are put together from the posteriors of a real CTC head on real speech;
    without, their errors are random.

    Attributes:
        share: Fraction of the sentences with a prompt.
        ctc: Run or model folder whose CTC head is imitated; its label units are the recipe's, or letters that are.
        speech: Transcribed speech for that head, augmented as the recipe says.
        compress: Show one position for each run of equal outputs and none for blanks, as the bridge `ctc_compress` with
            `repeats: average`; an adaptation does as its base.
        lexicon: Simulate the posteriors of the phone head of `ctc` instead (`bridge.show_phones`), with this file of
            pronunciations. Sentences with other words get no prompt. An adaptation may do without `ctc`.
    """

    share: Fraction = 0.5
    ctc: ModelPath | None = None
    speech: list[ManifestRef] = Field(default_factory=list)
    compress: bool = False
    lexicon: str | None = None

    def __post_init__(self) -> None:
        """Checks that the head has speech to read."""
        if (self.ctc is None) == bool(self.speech):
            raise ValueError("ctc and speech go together")
        if self.compress and self.lexicon is not None:
            raise ValueError("compress is for label units; with lexicon the phones of a frame share a position")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LanguageModelRecipe(TrainingRecipe):
    """A causal language model on text.

    Attributes:
        text_injection: Simulated CTC posteriors before a fraction of the sentences; None for none.
        augment: Augmentation of the speech of `text_injection`.
        prompt: Text around the simulated posteriors.
    """

    task: Literal["language_model"]
    units: Units
    text: TextData
    llm: LLM
    text_injection: TextInjection | None = None
    augment: Augment = Field(default_factory=Augment)
    prompt: Prompt = Field(default_factory=Prompt)

    def __post_init__(self) -> None:
        """Checks that phones have a head and drafts have phones, and that the sections fit each other."""
        injection = self.text_injection
        if injection is not None and injection.lexicon is not None and injection.ctc is None:
            raise ValueError("text_injection.lexicon needs text_injection.ctc, a run with phone heads")
        if self.prompt.draft is not None and (injection is None or injection.lexicon is None):
            raise ValueError("prompt.draft is for a speech_llm, or text injection with text_injection.lexicon")
        if self.llm.auxiliary_layer:
            raise ValueError("task 'language_model' does not use llm.auxiliary_layer")
        if self.units.kind == "llm" and self.llm.init is None:
            raise ValueError("units.kind 'llm' needs llm.init")

    @property
    def trainable(self) -> dict[str, Trainable]:
        """The LLM."""
        return {"llm": self.llm}
