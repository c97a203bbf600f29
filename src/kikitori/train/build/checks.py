"""From a recipe to what decides which rows it trains on: its label units and, for CTC, the frames of its encoder."""

from dataclasses import dataclass, replace

from kikitori.errors import ConfigError
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.folder import load_model
from kikitori.text.units import TokenizerUnits
from kikitori.train.build.acoustic import build_encoder, own_ctc_units
from kikitori.train.build.task import build_units
from kikitori.train.recipe.adaptation import SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.recipe.base import SpeechTrainingRecipe
from kikitori.train.recipe.data import SpeechData
from kikitori.train.recipe.language_model import LanguageModelRecipe
from kikitori.train.recipe.masked_prediction import MaskedPredictionRecipe
from kikitori.train.recipe.recipe import Recipe, resolve
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe


@dataclass(frozen=True)
class RowChecks:
    """What rows are checked with.

    Attributes:
        recipe: The recipe, with the folders of its models, and going on without broken lines and missing files.
        stops: Whether the recipe itself stops there.
        units: Label units of the transcripts; None where the task needs no text.
        encoder: Into whose frames CTC has to fit the labels; None without CTC losses over labels.
        ctc_units: Label units of CTC.
    """

    recipe: SpeechTrainingRecipe
    stops: bool
    units: TokenizerUnits | None = None
    encoder: SpeechEncoder | None = None
    ctc_units: TokenizerUnits | None = None


def row_checks(recipe: Recipe) -> RowChecks:
    """What the rows of a recipe are checked with, as `build_task` would make it.

    Raises:
        KikitoriError: The recipe trains on no speech, or something that it names is missing or does not fit.
    """
    match resolve(recipe):
        case AcousticModelRecipe() | SpeechLLMRecipe() as speech:
            skipping = replace(speech, data=_skipping(speech.data))
            encoder = build_encoder(speech.encoder) if speech.ctc.weights else None
            units = build_units(skipping)
            ctc_units = own_ctc_units(speech.encoder, speech.ctc, units) or units
            return RowChecks(skipping, speech.data.on_error == "stop", units, encoder, ctc_units)
        case SpeechAdaptationRecipe() as adaptation:
            base = load_model(adaptation.adapt.model)
            encoder = base.model.acoustic.encoder if adaptation.ctc.weights else None
            skipping_too = replace(adaptation, data=_skipping(adaptation.data))
            return RowChecks(skipping_too, adaptation.data.on_error == "stop", base.units, encoder, base.ctc_units)
        case MaskedPredictionRecipe() as masked:
            return RowChecks(replace(masked, data=_skipping(masked.data)), masked.data.on_error == "stop")
        case LanguageModelRecipe() | TextAdaptationRecipe():
            raise ConfigError("it trains on text alone", where="--recipe", remedy="name a recipe with data.train")


def _skipping(data: SpeechData) -> SpeechData:
    return replace(data, on_error="skip")
