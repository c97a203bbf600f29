"""Recipes: everything that decides a training run, as one strict YAML file.

Each task has a class of its own: `acoustic_model` (encoder + CTC), `speech_llm` (encoder + bridge + LLM),
`language_model` (a causal LM on text), `masked_prediction` (an encoder on speech without transcripts) and `adaptation`
(a finished speech LLM and a domain's speech or text). `base` has what they share.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from kikitori.errors import ConfigError
from kikitori.io.config import did_you_mean, merge_yaml, validate
from kikitori.io.model_folder import model_folder
from kikitori.model.published.part import find_base
from kikitori.train.recipe.adaptation import SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.recipe.language_model import LanguageModelRecipe
from kikitori.train.recipe.legacy import refuse_retired, renamed, renamed_overrides, without_retired, without_unused
from kikitori.train.recipe.masked_prediction import MaskedPredictionRecipe
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe
from kikitori.train.recipe.types import ModelPath

T = TypeVar("T")
Recipe = (
    AcousticModelRecipe
    | SpeechLLMRecipe
    | LanguageModelRecipe
    | MaskedPredictionRecipe
    | SpeechAdaptationRecipe
    | TextAdaptationRecipe
)
TASKS = ("acoustic_model", "speech_llm", "language_model", "masked_prediction", "adaptation")


def load_recipe(path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe with overrides applied.

    Raises:
        ConfigError: A key is unknown, has the wrong type, or does not fit the task.
    """
    recipe = parse_recipe(merge_yaml(path, renamed_overrides(overrides)), str(path))
    if not Path(recipe.data_root).is_dir():
        raise ConfigError(
            f"no such folder '{recipe.data_root}'",
            where=f"{path}: data_root",
            remedy="set it with data_root=FOLDER (relative to where you start kikitori)",
        )
    return recipe


def parse_recipe(values: Mapping[str, Any], where: str) -> Recipe:
    """A recipe from the plain values of a file (named in errors), of today's form or an older one.

    Raises:
        ConfigError: A key is unknown, has the wrong type, or does not fit the task.
    """
    schema = _recipe_class(values, where)
    values = without_retired(renamed(values))
    refuse_retired(values, where)
    used = {field.name for field in fields(schema)}
    known = {field.name for other in get_args(Recipe) for field in fields(other)}
    return validate(schema, without_unused(values, used, known, where), where)


def _recipe_class(values: Mapping[str, Any], where: str) -> type[Recipe]:
    match values.get("task"):
        case "acoustic_model":
            return AcousticModelRecipe
        case "speech_llm":
            return SpeechLLMRecipe
        case "language_model":
            return LanguageModelRecipe
        case "masked_prediction":
            return MaskedPredictionRecipe
        case "adaptation":
            to_text = values.get("text") is not None
            if to_text == (values.get("data") is not None):
                raise ConfigError("task 'adaptation' needs either 'data' or 'text'", where=where)
            return TextAdaptationRecipe if to_text else SpeechAdaptationRecipe
        case None:
            raise ConfigError("required key is missing", where=f"{where}: task", remedy=f"one of {', '.join(TASKS)}")
        case other:
            guess = did_you_mean(str(other), TASKS)
            remedy = f"did you mean '{guess}'?" if guess else f"one of {', '.join(TASKS)}"
            raise ConfigError(f"there is no task '{other}'", where=f"{where}: task", remedy=remedy)


def resolve(section: T) -> T:
    """A recipe, or a section of one, with the folder of each model that it names in place of a run or of a hub id.

    See `kikitori.model.published.part.find_base` for where hub ids are looked for.
    """
    changes: dict[str, Any] = {}
    for field in fields(section):  # type: ignore[arg-type]
        value = getattr(section, field.name)
        if is_dataclass(value):
            changes[field.name] = resolve(value)
        elif value is not None and ModelPath in (field.type, *get_args(field.type)):
            changes[field.name] = model_folder(find_base(value))
    return replace(section, **changes) if changes else section  # type: ignore[type-var]
