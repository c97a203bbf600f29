"""From a recipe to the simulation of CTC posteriors for text-only training, and to drafts."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kikitori.data.rows import joined
from kikitori.data.speech import SpeechLoader
from kikitori.errors import ConfigError
from kikitori.model.acoustic_model import AcousticModelConfig
from kikitori.model.folder import LoadedModel, load_config, load_model
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.lexicon import Lexicon, read_lexicon
from kikitori.text.units import TokenizerUnits, equal_units
from kikitori.train.build.corpora import Log, read_ref
from kikitori.train.build.speech_llm import spelled_labels
from kikitori.train.recipe.adaptation import TextAdaptationRecipe
from kikitori.train.recipe.language_model import LanguageModelRecipe, TextInjection
from kikitori.train.text_injection.ctc_prompts import AVERAGES, WHOLE, Compression, CTCPromptSimulator
from kikitori.train.text_injection.drafts import Drafter, own_drafter
from kikitori.train.text_injection.posteriors import ctc_posteriors
from kikitori.train.text_injection.prompts import (
    SPECIAL,
    PhonePromptSimulator,
    PosteriorSampler,
    PromptSimulator,
    RandomErrors,
    posterior_sampler,
)

TextRecipe = LanguageModelRecipe | TextAdaptationRecipe


def build_simulator(
    recipe: TextRecipe, units: TokenizerUnits, drafter: Drafter | None, log: Log
) -> PromptSimulator | None:
    """What simulates the CTC posteriors of the recipe's sentences, if it asks for any, perhaps with drafts beside.

    Raises:
        ConfigError: There is no such head, or it has other label units or phones.
    """
    settings = recipe.text_injection
    if settings is None:
        return None
    if settings.ctc is None or settings.lexicon is None:
        return _label_simulator(recipe, settings, units, units, AVERAGES if settings.compress else WHOLE, log)
    loaded, speech = _imitated(settings.ctc, recipe, settings)
    model = loaded.model.acoustic
    lexicon, heads = read_lexicon(Path(settings.lexicon)), model.config
    pronounce = _phone_numbers(heads, units, lexicon)
    posteriors = ctc_posteriors(model, speech, recipe.augment, phones=True)
    pronounced = ((log_probs, pronounce(text)) for log_probs, text in posteriors)
    known = ((log_probs, phones) for log_probs, phones in pronounced if phones)
    sampler = _sampler(known, len(heads.phones), "phones and outputs of their head", log)
    return _phone_simulator(sampler, heads, units, lexicon, drafter, recipe.language)


def build_adaptation_simulator(
    recipe: TextAdaptationRecipe, model: SpeechLLM, units: TokenizerUnits, heard: TokenizerUnits, log: Log
) -> PromptSimulator | None:
    """What simulates the posteriors of a domain's sentences as they stand in the base's speech prompts.

    Args:
        recipe: Of the adaptation.
        model: Its base.
        units: Label units of the base's LLM.
        heard: Label units of its CTC heads.
        log: Takes warnings.

    Raises:
        ConfigError: There is no such head, or it has other label units or phones.
    """
    settings, config = recipe.text_injection, model.config
    lexicon = None if settings is None else settings.lexicon
    if not (config.show_phones if lexicon else config.show_ctc):
        missing = "show_phones" if lexicon else "show_ctc"
        log(f"warning: the base has no {missing}; its speech prompts do not look like those that text gives it")
        if config.show_phones:
            log("warning: they show phones; name its pronunciations with text_injection.lexicon")
    if config.show_draft and not lexicon:
        log("warning: the base reads drafts too, and text gives it none without text_injection.lexicon")
    if settings is None:
        return None
    if lexicon is None:
        own = Compression(config.bridge_blanks, config.bridge_repeats)
        how = own if config.bridge == "ctc_compress" else WHOLE
        return _label_simulator(recipe, settings, units, heard if config.show_ctc else units, how, log)
    drafter = base_drafter(recipe.adapt.model, model, units)
    if settings.ctc is not None:
        return build_simulator(recipe, units, drafter, log)
    heads = model.acoustic.config
    errors = RandomErrors(range(len(heads.phones)))
    return _phone_simulator(errors, heads, units, read_lexicon(Path(lexicon)), drafter, recipe.language)


def num_simulated_phones(settings: TextInjection | None) -> int:
    """Embeddings that simulated phones need beyond those of the label units."""
    if settings is None or settings.lexicon is None or settings.ctc is None:
        return 0
    config: Any = load_config(settings.ctc)
    acoustic: AcousticModelConfig = config.acoustic_config if isinstance(config, SpeechLLMConfig) else config
    return acoustic.num_phone_outputs


def base_drafter(folder: str, model: SpeechLLM, units: TokenizerUnits) -> Drafter | None:
    """What makes the drafts of the base of an adaptation, if it reads any."""
    return own_drafter(Path(folder), units) if model.config.show_draft else None


def _phone_numbers(
    heads: AcousticModelConfig, units: TokenizerUnits, lexicon: Lexicon
) -> Callable[[str], list[int] | None]:
    """What pronounces a text in the phones of a head, if all its words are in the lexicon."""
    phones = {phone: number for number, phone in enumerate(heads.phones)}
    if not phones or not phones.keys() >= {*lexicon.phones}:
        where = "text_injection.lexicon"
        raise ConfigError("the phone head has other phones", where=where, remedy="take the head's own")

    def numbers(text: str) -> list[int] | None:
        pronounced = lexicon.pronounce(units.normalize(text))
        return None if pronounced is None else [phones[phone] for phone in pronounced]

    return numbers


def _phone_simulator(
    posteriors: PromptSimulator,
    heads: AcousticModelConfig,
    units: TokenizerUnits,
    lexicon: Lexicon,
    drafter: Drafter | None,
    language: str,
) -> PhonePromptSimulator:
    """Simulates the prompts of a phone head, of whose posteriors `posteriors` simulates single outputs."""
    pronounce = _phone_numbers(heads, units, lexicon)
    return PhonePromptSimulator(
        posteriors,
        lambda labels: pronounce(units.decode(labels)),
        *(len(heads.phones), heads.phone_upsample, units.size),
        None if drafter is None else drafter.of_phones(heads.phones, units, language),
    )


def _label_simulator(
    recipe: TextRecipe,
    settings: TextInjection,
    units: TokenizerUnits,
    heard: TokenizerUnits,
    how: Compression,
    log: Log,
) -> PromptSimulator:
    """What an LLM that writes `units` is shown of a CTC head: that of `ctc`, or one over `heard` with random errors."""
    if settings.ctc is None:
        return _as_shown(RandomErrors(range(SPECIAL, heard.size)), units, heard, how)
    loaded, speech = _imitated(settings.ctc, recipe, settings)
    heard = units if equal_units(loaded.ctc_units, units) else loaded.ctc_units
    posteriors = ctc_posteriors(loaded.model.acoustic, speech, recipe.augment)
    labelled = ((log_probs, heard.encode(text)) for log_probs, text in posteriors)
    return _as_shown(_sampler(labelled, heard.size, f"labels and frames of {settings.ctc}", log), units, heard, how)


def _imitated(folder: str, recipe: TextRecipe, settings: TextInjection) -> tuple[LoadedModel, SpeechLoader]:
    """A model with the CTC head that is imitated, and the speech for it."""
    loaded = load_model(folder)
    if not loaded.model.acoustic.config.ctc_layers:
        raise ConfigError("it has no CTC head", where="text_injection.ctc", remedy="name an acoustic model")
    rows = joined(read_ref(Path(recipe.data_root), ref).rows for ref in settings.speech)
    return loaded, SpeechLoader(rows, recipe.augment, seed=recipe.seed)


def _as_shown(
    posteriors: PromptSimulator, units: TokenizerUnits, heard: TokenizerUnits, how: Compression
) -> PromptSimulator:
    """Simulated outputs of a head over the labels `heard`, as an LLM that writes `units` is shown them."""
    same = equal_units(heard, units)
    if same and how == WHOLE:
        return posteriors
    shown = range(units.size) if same else spelled_labels(heard, units, "text_injection.ctc")
    return CTCPromptSimulator(posteriors, units, units if same else heard, np.array(shown, np.int64), how)


def _sampler(
    utterances: Iterable[tuple[NDArray[np.float32], list[int]]], size: int, what: str, log: Log
) -> PosteriorSampler:
    sampler = posterior_sampler(utterances, size)
    log(f"text injection: {len(sampler.spoken)} and {len(sampler.labels)} {what}")
    return sampler
