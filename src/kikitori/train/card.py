"""The model card of what a run exports: what it is, what it was trained on, what was measured, how to use it."""

import json
from pathlib import Path

from kikitori.model.published.card import write_card
from kikitori.train.loop.metrics import exported_scores
from kikitori.train.recipe.adaptation import SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.recipe.language_model import LanguageModelRecipe
from kikitori.train.recipe.masked_prediction import MaskedPredictionRecipe
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe

RECOGNISER = "kikitori transcribe talk.flac --model THIS_FOLDER"
WHAT = {
    "acoustic_model": ("A speech encoder with CTC heads", RECOGNISER),
    "speech_llm": ("A speech LLM: encoder, bridge and LLM", RECOGNISER),
    "language_model": (
        "A language model over label units",
        "kikitori transcribe talk.flac --decoding shallow_fusion decoding.scorers.lm.path=THIS_FOLDER",
    ),
    "masked_prediction": (
        "A speech encoder that learnt without transcripts",
        "# in a recipe\nencoder: {init: THIS_FOLDER}",
    ),
    "adaptation": (
        "An adapter for a speech LLM",
        "kikitori transcribe talk.flac --model BASE --adapter THIS_FOLDER --decoding greedy",
    ),
}
"""Of each task what comes out, and how it is used."""
PARTS = {"language_model": "text-generation", "masked_prediction": "feature-extraction"}
"""Tasks whose product is no recogniser but a model of transformers, and what it does there."""


def write_run_card(recipe: Recipe, run: Path, product: Path) -> None:
    """Writes the card of the folder that a run has exported.

    Raises:
        OSError: It cannot be written.
    """
    what, use = WHAT[recipe.task]
    known = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    counts = {name: count for name, count in known["data"].items() if isinstance(count, int)}
    data = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items() if count)
    versions = ", ".join(f"{name} {known['versions'][name]}" for name in ("kikitori", "torch", "transformers"))
    scores = exported_scores(run)
    rows = [f"| {name} | {score:.4f} |" for name, score in scores.items()]
    table = ["\n".join(["| dev | |", "| --- | --- |", *rows])] if rows else []
    text = [f"{what}, trained on {data} (language: {recipe.language}) with {versions}.", *table, f"```\n{use}\n```"]
    adapted = isinstance(recipe, SpeechAdaptationRecipe | TextAdaptationRecipe)
    write_card(
        product,
        run.resolve().name,
        "\n\n".join(text),
        language=recipe.language,
        base_models=_bases(recipe),
        relation="adapter" if adapted else "finetune",
        scores=scores,
        library="transformers" if recipe.task in PARTS else "kikitori",
        pipeline=PARTS.get(recipe.task, "automatic-speech-recognition"),
    )


def _bases(recipe: Recipe) -> list[str]:
    found: list[str | None]
    match recipe:
        case SpeechAdaptationRecipe() | TextAdaptationRecipe():
            found = [recipe.adapt.model]
        case AcousticModelRecipe() | MaskedPredictionRecipe():
            found = [recipe.encoder.init]
        case LanguageModelRecipe():
            found = [recipe.llm.init]
        case SpeechLLMRecipe():
            found = [recipe.encoder.init, recipe.llm.init]
    return [base for base in found if base is not None]
