"""From a recipe to the thing that is trained: units, data and models as one task."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kikitori.align.hmm.corpus import load_alignments
from kikitori.data.speech import SpeechLoader
from kikitori.errors import ConfigError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.adapters.folder import fingerprint
from kikitori.model.folder import load_config, load_model, model_folder
from kikitori.model.speech_llm import SpeechLLM
from kikitori.text.lexicon import Lexicon, read_lexicon
from kikitori.text.units import (
    TokenizerUnits,
    character_units,
    equal_units,
    load_units,
    sentencepiece_units,
    with_text_form,
)
from kikitori.train.build.corpora import (
    Log,
    corpus,
    sentences,
    speech,
    taken,
    training_rows,
    transcripts,
    waveform_augment,
)
from kikitori.train.build.networks import (
    build_acoustic_model,
    build_encoder,
    build_llm,
    build_speech_llm,
    has_new_vocabulary,
    with_policy,
)
from kikitori.train.loop.memory import checkpoint_activations
from kikitori.train.losses.frame_targets import FrameFeatures, LayerStates, LogMelStacks, fit
from kikitori.train.losses.phones import PhoneTeacher
from kikitori.train.recipe.components import Encoder, Lora
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.tasks.adaptation import AdaptationTask, Base, TextAdaptationTask, set_components
from kikitori.train.tasks.base import Task
from kikitori.train.tasks.masked import MaskedPredictionTask
from kikitori.train.tasks.masked_predictor import MaskedPredictor
from kikitori.train.tasks.speech import AcousticTask, hear
from kikitori.train.tasks.speech_llm import SpeechLLMTask
from kikitori.train.tasks.text import TextTask
from kikitori.train.text_injection.drafts import Drafter, load_drafter, own_drafter
from kikitori.train.text_injection.prompts import (
    SPECIAL,
    InventedErrors,
    PhonePrompts,
    PosteriorBank,
    Prompter,
    posterior_bank,
)


def build_task(recipe: Recipe, log: Log) -> Task:
    """The task of a recipe, ready to train; what was filtered is logged.

    Raises:
        KikitoriError: Something the recipe names is missing or does not fit.
    """
    task: Task
    if recipe.task == "adaptation":
        task = build_adaptation(recipe, log)
    elif recipe.task == "masked_prediction":
        task = build_masked_prediction(recipe, log)
    else:
        assert recipe.units is not None  # noqa: S101  (validated by Recipe)
        units = build_units(recipe)
        log(f"label units: {units.size} ({recipe.units.kind})")
        task = _build_task(recipe, units, log)
    if recipe.run.gradient_checkpointing:
        checkpoint_activations(task.module)
    return task


def _build_task(recipe: Recipe, units: TokenizerUnits, log: Log) -> Task:
    if recipe.llm is not None and has_new_vocabulary(recipe.llm, units):
        log(f"the LLM gets new embeddings for the {units.size} units, which learn whatever its policy")
    if recipe.task == "language_model":
        train_text, dev_text = sentences(recipe, units, log)
        assert recipe.llm is not None  # noqa: S101  (validated by Recipe)
        llm = with_policy(build_llm(recipe, units), recipe.llm, units)
        return TextTask(recipe, llm, units, train_text, dev_text, build_prompter(recipe, units, log))
    train, dev = speech(recipe, units, log)
    characters = None
    if recipe.ctc.character_layer:
        texts = (utterance.text or "" for utterance in train.utterances)
        characters = character_units(map(units.normalize, texts), "as_is")
    heads = recipe.ctc.phones
    lexicon = read_lexicon(Path(heads.lexicon)) if heads else None
    phones = lexicon.phones if lexicon else ()
    speech_llm = build_speech_llm(recipe, units, phones) if recipe.task == "speech_llm" else None
    acoustic = speech_llm.acoustic if speech_llm else build_acoustic_model(recipe, units, phones)
    teacher = None
    if heads is not None and lexicon is not None:
        alignments = load_alignments(Path(heads.alignments)) if heads.alignments else None
        said = [utterance.text or "" for utterance in train.utterances]
        teacher = PhoneTeacher(heads, acoustic, units, lexicon, said, alignments)
    if speech_llm is None:
        return AcousticTask(recipe, acoustic, units, characters, train, dev, teacher)
    return SpeechLLMTask(recipe, speech_llm, units, characters, train, dev, teacher, _drafter(recipe, units))


def build_units(recipe: Recipe) -> TokenizerUnits:
    """The recipe's label units, trained on its text where they have to be."""
    settings = recipe.units
    assert settings is not None  # noqa: S101  (validated by Recipe)
    match settings.kind:
        case "run":
            return load_units(model_folder(str(settings.path)))
        case "llm":
            assert recipe.llm is not None  # noqa: S101  (validated by Recipe)
            return with_text_form(load_units(model_folder(str(recipe.llm.init))), settings.text_form)
        case "characters":
            return character_units(corpus(recipe), settings.text_form)
        case "sentencepiece":
            return sentencepiece_units(corpus(recipe), settings.size, settings.text_form)


def build_masked_prediction(recipe: Recipe, log: Log) -> MaskedPredictionTask:
    """An encoder that learns from speech alone, and the clusters that it predicts.

    Raises:
        ConfigError: The encoder reads waveforms, or the layer to cluster does not exist.
    """
    settings = recipe.targets
    assert recipe.encoder is not None  # noqa: S101  (validated by Recipe)
    assert settings is not None  # noqa: S101  (validated by Recipe)
    encoder = build_encoder(recipe.encoder)
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
    train, dev = speech(recipe, None, log)
    means = fit(features, train, settings.clusters, recipe.seed, log)
    return MaskedPredictionTask(recipe, MaskedPredictor(encoder, means, settings.upsample), features, train, dev)


def build_prompter(recipe: Recipe, units: TokenizerUnits, log: Log) -> Prompter | None:
    """What shows the sentences of the recipe's reading practice, if it has any.

    Raises:
        ConfigError: There is no such head, or it has other label units or phones.
    """
    settings = recipe.denoising
    if settings is None:
        return None
    if settings.ctc is None:
        return InventedErrors(range(SPECIAL, units.size), settings)
    folder = model_folder(settings.ctc)
    loaded = load_model(folder)
    model = loaded.model.acoustic
    if not model.config.ctc_layers or not equal_units(loaded.units, units):
        raise ConfigError(
            "it has no CTC head over these label units",
            where="denoising.ctc",
            remedy="take units.path from the same run",
        )
    root = Path(recipe.data_root)
    rows = [row for ref in settings.speech for row in taken(root, ref).utterances]
    speech = SpeechLoader(rows, waveform_augment(recipe), seed=recipe.seed)
    if settings.lexicon is not None:
        lexicon = read_lexicon(Path(settings.lexicon))
        return _phone_prompts(recipe, model, speech, units, lexicon, log)
    heard = ((log_probs, units.encode(text)) for log_probs, text in hear(model, speech, recipe.augment))
    return _bank(heard, units.size, f"labels and frames of {settings.ctc}", log)


def _drafter(recipe: Recipe, units: TokenizerUnits) -> Drafter | None:
    """What makes the drafts of a recipe, or of the base of an adaptation."""
    if recipe.adapt is not None:
        folder = model_folder(recipe.adapt.model)
        reads_drafts = getattr(load_config(folder), "show_draft", False)
        return own_drafter(Path(folder), units) if reads_drafts else None
    return load_drafter(recipe.prompt.draft, units) if recipe.prompt.draft else None


def _phone_prompts(
    recipe: Recipe, model: AcousticModel, speech: SpeechLoader, units: TokenizerUnits, lexicon: Lexicon, log: Log
) -> PhonePrompts:
    pronounce = _phone_numbers(model.config, units, lexicon)
    heard = ((row, pronounce(text)) for row, text in hear(model, speech, recipe.augment, phones=True))
    spoken = ((row, said) for row, said in heard if said)
    bank = _bank(spoken, len(model.config.phones), "phones and outputs of their head", log)
    return _showing(recipe, bank, model.config, units, lexicon)


def _phone_numbers(
    heads: AcousticModelConfig, units: TokenizerUnits, lexicon: Lexicon
) -> Callable[[str], list[int] | None]:
    """What says a text in the phones of a head, if all its words are in the lexicon."""
    phones = {phone: number for number, phone in enumerate(heads.phones)}
    if not phones or not phones.keys() >= {*lexicon.phones}:
        raise ConfigError("the phone head has other phones", where="denoising.lexicon", remedy="take the head's own")

    def numbers(text: str) -> list[int] | None:
        said = lexicon.pronounce(units.normalize(text))
        return None if said is None else [phones[phone] for phone in said]

    return numbers


def _showing(
    recipe: Recipe, heard: Prompter, heads: AcousticModelConfig, units: TokenizerUnits, lexicon: Lexicon
) -> PhonePrompts:
    """Sentences as prompts of phones, each as `heard` shows it, with drafts if the LLM reads them."""
    pronounce, drafter = _phone_numbers(heads, units, lexicon), _drafter(recipe, units)
    return PhonePrompts(
        heard,
        lambda labels: pronounce(units.decode(labels)),
        *(len(heads.phones), heads.phone_upsample, units.size),
        None if drafter is None else drafter.of_phones(heads.phones, units, recipe.language),
    )


def _bank(heard: Iterable[tuple[NDArray[np.float32], list[int]]], size: int, what: str, log: Log) -> PosteriorBank:
    bank = posterior_bank(heard, size)
    log(f"denoising: {len(bank.spoken)} and {len(bank.labels)} {what}")
    return bank


def _adapting_prompter(recipe: Recipe, model: SpeechLLM, units: TokenizerUnits, log: Log) -> Prompter | None:
    """What shows the sentences of a domain as the base's speech prompts look."""
    settings, shown = recipe.denoising, model.config
    lexicon = None if settings is None else settings.lexicon
    if not (shown.show_phones if lexicon else shown.show_ctc):
        missing = "show_phones" if lexicon else "show_ctc"
        log(f"warning: the base has no {missing}; its speech prompts do not look like those that text gives it")
        if shown.show_phones:
            log("warning: they show phones; name its pronunciations with denoising.lexicon")
    if shown.show_draft and not lexicon:
        log("warning: the base reads drafts too, and text gives it none without denoising.lexicon")
    if settings is None or lexicon is None or settings.ctc is not None:
        return build_prompter(recipe, units, log)
    heads = model.acoustic.config
    errors = InventedErrors(range(len(heads.phones)), settings)
    return _showing(recipe, errors, heads, units, read_lexicon(Path(lexicon)))


def build_adaptation(recipe: Recipe, log: Log) -> Task:
    """A finished speech LLM, frozen but for what is adapted, and the domain's speech or text."""
    settings, replay = recipe.adapt, recipe.replay
    assert settings is not None  # noqa: S101  (validated by Recipe)
    folder = model_folder(settings.model)
    loaded = load_model(folder)
    model, units = loaded.model.speech_llm, loaded.units
    if model is None:
        raise ConfigError("it is no speech LLM", where="adapt.model", remedy="name a speech_llm run or its model")
    log(f"label units: {units.size} (those of the base)")
    unknown = sorted(set(recipe.ctc.weights) - set(model.acoustic.config.ctc_layers))
    if unknown:
        raise ConfigError(f"the base has no CTC head on layer {unknown[0]}", where="ctc.weights", remedy="leave it out")
    name = "/".join(Path(folder).parts[-2:])  # where the base lies here says nothing elsewhere
    base = Base(name, fingerprint(folder, model), loaded.trained_on)
    set_components(model, settings, recipe.lora or Lora(), list(recipe.ctc.weights))
    old = [] if replay is None else replay.train
    if recipe.text is not None:
        prompter = _adapting_prompter(recipe, model, units, log)
        new, dev = sentences(recipe, units, log)
        replayed = (units.encode(text)[: recipe.text.max_labels] for text in transcripts(Path(recipe.data_root), old))
        train_text = [*new, *(labels for labels in replayed if labels)]
        return TextAdaptationTask(recipe, base, model, units, train_text, len(new), dev, prompter)
    train, dev_speech = speech(recipe, units, log)
    num_new = len(train.utterances)
    if old:
        train.utterances = [*train.utterances, *training_rows(recipe, "replay", old, units, log)]
    return AdaptationTask(recipe, base, model, units, train, num_new, dev_speech, _drafter(recipe, units))
