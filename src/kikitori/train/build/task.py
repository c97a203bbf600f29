"""From a recipe to the thing that is trained: units, data and models as one task."""

from dataclasses import replace
from pathlib import Path

from kikitori.align.hmm.corpus import load_alignments
from kikitori.data.rows import joined
from kikitori.data.speech import SpeechLoader
from kikitori.errors import ConfigError
from kikitori.io.extras import require
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.adapters.info import fingerprint
from kikitori.model.adapters.lora import Lora
from kikitori.model.folder import LoadedModel, load_model
from kikitori.model.speech_llm import SpeechLLM
from kikitori.text.lexicon import Lexicon, read_lexicon
from kikitori.text.prompt import PRESETS, compile_prompt
from kikitori.text.unit_training import character_units, sentencepiece_units
from kikitori.text.units import TokenizerUnits, load_units, with_text_form
from kikitori.text.words import check_coverage
from kikitori.train.build.acoustic import build_acoustic_model, build_encoder, own_ctc_units
from kikitori.train.build.cached_encoder import build_cached_encoder
from kikitori.train.build.corpora import (
    Log,
    load_sentences,
    load_speech,
    read_training_rows,
    read_transcripts,
    read_unit_text,
)
from kikitori.train.build.speech_llm import build_llm, build_speech_llm, has_new_vocabulary, with_policy
from kikitori.train.build.text_injection import (
    base_drafter,
    build_adaptation_simulator,
    build_simulator,
    num_simulated_phones,
)
from kikitori.train.losses.frame_targets import FrameFeatures, LayerStates, LogMelStacks, fit_clusters
from kikitori.train.losses.phones import PhoneLosses
from kikitori.train.memory.recompute import checkpoint_activations
from kikitori.train.recipe.adaptation import AdaptationRecipe, SpeechAdaptationRecipe, TextAdaptationRecipe
from kikitori.train.recipe.components import CTC, LLM, Encoder, Phones
from kikitori.train.recipe.language_model import LanguageModelRecipe
from kikitori.train.recipe.masked_prediction import MaskedPredictionRecipe
from kikitori.train.recipe.recipe import Recipe, resolve
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe
from kikitori.train.tasks.adaptation import AdaptationTask, Base, TextAdaptationTask, set_components
from kikitori.train.tasks.base import Task
from kikitori.train.tasks.masked import MaskedPredictionTask
from kikitori.train.tasks.masked_predictor import MaskedPredictor
from kikitori.train.tasks.speech import AcousticTask
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from kikitori.train.tasks.text import TextTask
from kikitori.train.text_injection.drafts import load_drafter


def build_task(recipe: Recipe, log: Log) -> Task:
    """The task of a recipe, ready to train; what was filtered is logged.

    Raises:
        KikitoriError: Something the recipe names is missing or does not fit.
    """
    if "lora" in _policies(recipe):
        require("peft", "LoRA needs")
    task: Task
    match resolve(recipe):
        case AcousticModelRecipe() as resolved:
            task = _acoustic(resolved, log)
        case SpeechLLMRecipe() as resolved:
            task = _speech_llm(resolved, log)
        case LanguageModelRecipe() as resolved:
            task = _language_model(resolved, log)
        case MaskedPredictionRecipe() as resolved:
            task = _masked_prediction(resolved, log)
        case SpeechAdaptationRecipe() as resolved:
            task = _speech_adaptation(resolved, log)
        case TextAdaptationRecipe() as resolved:
            task = _text_adaptation(resolved, log)
    if recipe.run.gradient_checkpointing:
        checkpoint_activations(task.module)
    return task


def _policies(recipe: Recipe) -> set[str]:
    """How the parts of a recipe learn."""
    match recipe:
        case SpeechAdaptationRecipe() | TextAdaptationRecipe():
            return {"lora"} if "llm" in recipe.adapt.components else set()
        case SpeechLLMRecipe():
            return {recipe.encoder.policy, recipe.llm.policy}
        case LanguageModelRecipe():
            return {recipe.llm.policy}
        case _:
            return {recipe.encoder.policy}


def build_units(
    recipe: AcousticModelRecipe | SpeechLLMRecipe | LanguageModelRecipe, log: Log = lambda _: None
) -> TokenizerUnits:
    """The recipe's label units, trained on its text where they have to be."""
    settings = recipe.units
    match settings.kind:
        case "run":
            return load_units(str(settings.path))
        case "llm":
            return with_text_form(load_units(str(recipe.trainable["llm"].init)), settings.text_form)
        case "characters":
            return character_units(read_unit_text(recipe, log), settings.text_form)
        case "sentencepiece":
            return sentencepiece_units(read_unit_text(recipe, log), settings.size, settings.text_form)


def _acoustic(recipe: AcousticModelRecipe, log: Log) -> AcousticTask:
    units = _units(recipe, log)
    train, dev = load_speech(recipe, units, log)
    characters, lexicon = _character_units(recipe.ctc, units, train), _lexicon(recipe.ctc.phones)
    model = build_acoustic_model(recipe.encoder, recipe.ctc, units, lexicon.phones if lexicon else ())
    phone_losses = _phone_losses(recipe.ctc.phones, lexicon, model, units, train)
    cached = build_cached_encoder(recipe, model)
    return AcousticTask(recipe, model, units, characters, train, dev, phone_losses, cached)


def _speech_llm(recipe: SpeechLLMRecipe, log: Log) -> SpeechLLMTask:
    units = _units(recipe, log)
    _tell_new_vocabulary(recipe.llm, units, log)
    train, dev = load_speech(recipe, units, log)
    characters, lexicon = _character_units(recipe.ctc, units, train), _lexicon(recipe.ctc.phones)
    ctc_units = own_ctc_units(recipe.encoder, recipe.ctc, units)
    model = build_speech_llm(recipe, units, lexicon.phones if lexicon else (), ctc_units)
    learning = recipe.ctc.phones if recipe.ctc.policy != "frozen" else None
    phone_losses = _phone_losses(learning, lexicon, model.acoustic, units, train)
    drafter = load_drafter(recipe.prompt.draft, units) if recipe.prompt.draft else None
    cached, auxiliary = build_cached_encoder(recipe, model.acoustic), recipe.llm.auxiliary_layer
    return SpeechLLMTask(
        recipe, model, units, characters, train, dev, phone_losses, drafter, auxiliary, cached, ctc_units
    )


def _language_model(recipe: LanguageModelRecipe, log: Log) -> TextTask:
    units = _units(recipe, log)
    _tell_new_vocabulary(recipe.llm, units, log)
    train, dev = load_sentences(recipe, units, log)
    llm = build_llm(recipe.llm, units, num_simulated_phones(recipe.text_injection))
    llm = with_policy(llm, recipe.llm, units)
    drafter = load_drafter(recipe.prompt.draft, units) if recipe.prompt.draft else None
    simulator = build_simulator(recipe, units, drafter, log)
    template = replace(PRESETS[recipe.prompt.preset], draft=drafter is not None)
    prompt = compile_prompt(template, units.verbatim)
    return TextTask(recipe, llm, units, train, dev, simulator, prompt)


def _masked_prediction(recipe: MaskedPredictionRecipe, log: Log) -> MaskedPredictionTask:
    settings, encoder = recipe.targets, build_encoder(recipe.encoder)
    if encoder.takes_waveform:
        raise ConfigError(
            f"an encoder of type '{encoder.config.model_type}' reads waveforms; it is log-mel features that are masked",
            where="encoder",
            remedy="use a FastConformer (parakeet_encoder) or Whisper",
        )
    features: FrameFeatures = LogMelStacks()
    if settings.run is not None:
        trained = build_encoder(Encoder(init=settings.run, policy="frozen"))
        if settings.layer > trained.num_layers:
            where = "targets.layer"
            raise ConfigError(f"the run has layers 1 to {trained.num_layers}", where=where, remedy="name one of them")
        features = LayerStates(trained, settings.layer)
    train, dev = load_speech(recipe, None, log)
    means = fit_clusters(features, train, settings.clusters, recipe.seed, log)
    return MaskedPredictionTask(recipe, MaskedPredictor(encoder, means, settings.upsample), features, train, dev)


def _speech_adaptation(recipe: SpeechAdaptationRecipe, log: Log) -> AdaptationTask:
    base, model, loaded = _load_base(recipe, recipe.ctc, log)
    units = loaded.units
    train, dev = load_speech(recipe, units, log)
    num_new = len(train.utterances)
    if recipe.replay is not None:
        replayed = read_training_rows(recipe, "replay", recipe.replay.train, units, log)
        train.utterances = joined([train.utterances, replayed])
    drafter = base_drafter(recipe.adapt.model, model, units)
    return AdaptationTask(recipe, base, model, units, train, num_new, dev, drafter, loaded.own_ctc_units)


def _text_adaptation(recipe: TextAdaptationRecipe, log: Log) -> TextAdaptationTask:
    base, model, loaded = _load_base(recipe, CTC(), log)
    units = loaded.units
    simulator = build_adaptation_simulator(recipe, model, units, loaded.ctc_units, log)
    new, dev = load_sentences(recipe, units, log)
    old = [] if recipe.replay is None else recipe.replay.train
    texts = read_transcripts(Path(recipe.data_root), old)
    replayed = (units.encode(text)[: recipe.text.max_labels] for text in texts)
    train = [*new, *(labels for labels in replayed if labels)]
    return TextAdaptationTask(recipe, base, model, units, train, len(new), dev, simulator)


def _load_base(recipe: AdaptationRecipe, ctc: CTC, log: Log) -> tuple[Base, SpeechLLM, LoadedModel]:
    """The recogniser to adapt, frozen but for what is adapted, also as it was loaded, with its units."""
    folder = recipe.adapt.model
    loaded = load_model(folder)
    model = loaded.model.speech_llm
    if model is None:
        raise ConfigError("it is no speech LLM", where="adapt.model", remedy="name a speech_llm run or its model")
    log(f"label units: {loaded.units.size} (those of the base)")
    unknown = sorted(set(ctc.weights) - set(model.acoustic.config.ctc_layers))
    if unknown:
        raise ConfigError(f"the base has no CTC head on layer {unknown[0]}", where="ctc.weights", remedy="leave it out")
    name = "/".join(Path(folder).parts[-2:])  # where the base lies here says nothing elsewhere
    base = Base(name, fingerprint(folder, model), loaded.trained_on)
    set_components(model, recipe.adapt, recipe.lora or Lora(), list(ctc.weights))
    return base, model, loaded


def _units(recipe: AcousticModelRecipe | SpeechLLMRecipe | LanguageModelRecipe, log: Log) -> TokenizerUnits:
    units = build_units(recipe, log)
    log(f"label units: {units.size} ({recipe.units.kind})")
    return units


def _tell_new_vocabulary(settings: LLM, units: TokenizerUnits, log: Log) -> None:
    if has_new_vocabulary(settings, units):
        log(f"the LLM gets new embeddings for the {units.size} units, which learn whatever its policy")


def _character_units(ctc: CTC, units: TokenizerUnits, train: SpeechLoader) -> TokenizerUnits | None:
    """Units of the auxiliary character head, if the recipe asks for one."""
    if not ctc.character_layer:
        return None
    texts = (utterance.text or "" for utterance in train.utterances)
    return character_units(map(units.normalize, texts), "as_is")


def _lexicon(settings: Phones | None) -> Lexicon | None:
    return None if settings is None else read_lexicon(Path(settings.lexicon))


def _phone_losses(
    settings: Phones | None, lexicon: Lexicon | None, model: AcousticNetwork, units: TokenizerUnits, train: SpeechLoader
) -> PhoneLosses | None:
    if settings is None or lexicon is None:
        return None
    alignments = load_alignments(Path(settings.alignments)) if settings.alignments else None
    texts = [utterance.text or "" for utterance in train.utterances]
    spoken = {word for text in texts for word in units.normalize(text).split()}
    what = "words of the transcripts and the lexicon"
    check_coverage(spoken, lexicon.pronunciations.keys(), what=what, where=settings.lexicon)
    return PhoneLosses(settings, model, units, lexicon, texts, alignments)
