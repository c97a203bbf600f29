"""From a recipe to the thing that is trained: units, data, models, task."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from kikitori.data.manifest import read_manifest
from kikitori.data.speech import SpeechLoader, WaveformAugment, filter_utterances
from kikitori.data.text import read_lines, speak_titles
from kikitori.errors import ConfigError, DataError, KikitoriError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.adapter_folder import fingerprint
from kikitori.model.adapters import attach_encoder_lora, attach_lora
from kikitori.model.encoder import SpeechEncoder, freeze
from kikitori.model.folder import is_recogniser, load_config, load_llm, load_model
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.model.vocabulary import embedding_layers, swap_vocabulary
from kikitori.text.prompt import PRESETS, PromptTemplate, compile_prompt
from kikitori.text.units import TokenizerUnits, character_units, load_units, sentencepiece_units, with_text_form
from kikitori.train.adaptation_task import AdaptationTask, Base, TextAdaptationTask, set_components
from kikitori.train.components import LLM, Encoder, Lora
from kikitori.train.memory import checkpoint_activations
from kikitori.train.pseudo_prompts import PosteriorBank, posterior_bank
from kikitori.train.recipe import Recipe
from kikitori.train.settings import ManifestRef, TextData
from kikitori.train.speech_llm_task import SpeechLLMTask
from kikitori.train.speech_task import AcousticTask, hear
from kikitori.train.text_task import TextTask
from kikitori.train.trainer import Task
from kikitori.types import Utterance

Log = Callable[[str], None]


def build_task(recipe: Recipe, log: Log) -> Task:
    """The task of a recipe, ready to train; what was filtered is logged.

    Raises:
        KikitoriError: Something the recipe names is missing or does not fit.
    """
    if recipe.task == "adaptation":
        task = build_adaptation(recipe, log)
    else:
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
        train_text, dev_text = _sentences(recipe, units, log)
        assert recipe.llm is not None  # noqa: S101  (validated by Recipe)
        llm = with_policy(build_llm(recipe, units), recipe.llm, units)
        return TextTask(recipe, llm, units, train_text, dev_text, build_bank(recipe, units, log))
    train, dev = _speech(recipe, units, log)
    characters = None
    if recipe.ctc.character_layer:
        texts = (utterance.text or "" for utterance in train.utterances)
        characters = character_units(map(units.normalize, texts), "as_is")
    if recipe.task == "acoustic_model":
        return AcousticTask(recipe, build_acoustic_model(recipe, units), units, characters, train, dev)
    model = build_speech_llm(recipe, units)
    return SpeechLLMTask(recipe, model, units, characters, train, dev)


def build_units(recipe: Recipe) -> TokenizerUnits:
    """The recipe's label units, trained on its text where they have to be."""
    settings = recipe.units
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


def corpus(recipe: Recipe) -> Iterator[str]:
    """The recipe's text: its files and transcripts, or else the transcripts of its training speech."""
    root = Path(recipe.data_root)
    if recipe.text is None:
        assert recipe.data is not None  # noqa: S101  (validated by Recipe)
        return _transcripts(root, recipe.data.train)
    return text_lines(root, recipe.text)


def text_lines(root: Path, text: TextData) -> Iterator[str]:
    """Sentences of the text section: files, then transcripts."""
    lines = chain.from_iterable(read_lines(root / file, max_lines=text.max_lines) for file in text.files)
    spoken = map(speak_titles, lines) if text.spoken_titles else lines
    return chain(spoken, _transcripts(root, text.transcripts))


def build_acoustic_model(recipe: Recipe, units: TokenizerUnits) -> AcousticModel:
    """Encoder and CTC heads, from scratch or from where the recipe says; heads of a run with the same units go on."""
    assert recipe.encoder is not None  # noqa: S101  (validated by Recipe)
    start, start_units = _start(recipe.encoder)
    encoder = start.encoder if isinstance(start, AcousticModel) else start
    layers = sorted(recipe.ctc.weights)
    deepest = max([*layers, recipe.ctc.character_layer])
    if deepest > encoder.num_layers or (layers and layers[0] < 1):
        raise ConfigError(f"the encoder has layers 1 to {encoder.num_layers}", where="ctc", remedy="mend the layers")
    config = AcousticModelConfig(encoder_config=encoder.config, ctc_layers=layers, num_units=units.size)
    model = AcousticModel(config, encoder=encoder)
    if isinstance(start, AcousticModel) and start_units is not None and _equal(start_units, units):
        for layer in set(layers) & set(start.config.ctc_layers):
            model.ctc_heads[str(layer)] = start.ctc_heads[str(layer)]
    freeze(encoder, _freeze_plan(recipe.encoder))
    if recipe.encoder.policy == "lora":
        attach_encoder_lora(encoder, **asdict(recipe.encoder.lora or Lora()))
    return model


def build_llm(recipe: Recipe, units: TokenizerUnits) -> PreTrainedModel:
    """The LLM, from scratch or from where the recipe says, with the units' vocabulary; its policy comes later."""
    settings = recipe.llm
    assert settings is not None  # noqa: S101  (validated by Recipe)
    special = {"bos_token_id": units.bos_id, "eos_token_id": units.eos_id, "pad_token_id": None}
    if settings.config is not None:
        values = {"vocab_size": units.size, **special, **settings.config}
        llm = _random_llm(transformers_config(values, "llm.config"), "llm.config")
    elif settings.random:
        shape: Any = load_config(model_folder(str(settings.init)))
        shape = shape.llm_config if isinstance(shape, SpeechLLMConfig) else shape
        if has_new_vocabulary(settings, units):
            for name, value in {"vocab_size": units.size, **special}.items():
                setattr(shape, name, value)
        llm = _random_llm(shape, "llm.init")
    else:
        llm = load_llm(model_folder(str(settings.init)))
        if has_new_vocabulary(settings, units):
            swap_vocabulary(llm, units, own_units(settings))
    embeddings: Any = llm.get_input_embeddings()
    vocabulary = int(embeddings.num_embeddings)
    if vocabulary < units.size:
        raise ConfigError(
            f"the LLM knows {vocabulary} labels, the units are {units.size}",
            where="units",
            remedy="leave out llm.config.vocab_size, or mend the tokenizer of llm.init",
        )
    return llm


def build_bank(recipe: Recipe, units: TokenizerUnits, log: Log) -> PosteriorBank | None:
    """What the recipe's reading practice imitates, if it names a CTC head.

    Raises:
        ConfigError: There is no CTC head, or it has other label units.
    """
    settings = recipe.denoising
    if settings is None or settings.ctc is None:
        return None
    folder = model_folder(settings.ctc)
    loaded = load_model(folder)
    model = loaded.model.acoustic if isinstance(loaded.model, SpeechLLM) else loaded.model
    if not model.config.ctc_layers or not _equal(loaded.units, units):
        raise ConfigError(
            "it has no CTC head over these label units",
            where="denoising.ctc",
            remedy="take units.path from the same run",
        )
    root = Path(recipe.data_root)
    rows = [row for ref in settings.speech for row in read_manifest(root / ref.path, split=ref.split).utterances]
    heard = hear(model, SpeechLoader(rows, _waveform_augment(recipe), seed=recipe.seed), units, recipe.augment)
    bank = posterior_bank(heard, units.size)
    log(f"denoising: {len(bank.spoken)} labels and {len(bank.labels)} frames of {settings.ctc}")
    return bank


def own_units(settings: LLM) -> TokenizerUnits | None:
    """The units that the LLM was trained with, if it was and they are still there."""
    if settings.init is None:
        return None
    folder = Path(model_folder(settings.init))
    lost = folder.is_dir() and not any(folder.glob("tokenizer*"))
    return None if lost else load_units(model_folder(settings.init))


def has_new_vocabulary(settings: LLM, units: TokenizerUnits) -> bool:
    """Whether the LLM starts from a model with other units than those it shall write."""
    own = own_units(settings)
    return settings.init is not None and (own is None or not _equal(own, units))


def with_policy(llm: PreTrainedModel, settings: LLM, units: TokenizerUnits) -> PreTrainedModel:
    """The LLM as its policy wants it: as it is, frozen, or frozen within adapters; matrices for new units learn."""
    is_new = has_new_vocabulary(settings, units)
    if settings.freeze_embeddings:
        if is_new:
            raise ConfigError(
                "the embeddings are new and have to learn", where="llm.freeze_embeddings", remedy="leave it out"
            )
        llm.get_input_embeddings().requires_grad_(False)
    if settings.policy == "frozen":
        llm.requires_grad_(False)
    if settings.policy == "lora":
        llm = attach_lora(llm, **asdict(settings.lora or Lora()))
    if is_new:
        for layer in embedding_layers(llm):
            layer.requires_grad_(True)
    return llm


def build_speech_llm(recipe: Recipe, units: TokenizerUnits) -> SpeechLLM:
    """Acoustic model, bridge, interface and LLM joined, each with its start and policy."""
    bridge, prompt = recipe.bridge, compile_prompt(_template(recipe), units.verbatim)
    assert bridge is not None  # noqa: S101  (validated by Recipe)
    assert recipe.llm is not None  # noqa: S101  (validated by Recipe)
    acoustic, llm = build_acoustic_model(recipe, units), build_llm(recipe, units)
    if recipe.llm.auxiliary_layer >= (num_layers := int(llm.config.num_hidden_layers)):
        raise ConfigError(
            f"the last of the LLM's {num_layers} layers has its loss already",
            where="llm.auxiliary_layer",
            remedy="name an earlier layer",
        )
    config = SpeechLLMConfig(
        acoustic_config=acoustic.config,
        llm_config=llm.config,
        bridge=bridge.kind,
        bridge_stride=bridge.stride,
        bridge_blanks=bridge.blanks,
        bridge_repeats=bridge.repeats,
        bridge_ctc_layer=bridge.ctc_layer,
        show_ctc=bridge.show_ctc,
        interface=recipe.interface,
        prompt_before=prompt.before,
        prompt_after=prompt.after if prompt.bos is None else (*prompt.after, prompt.bos),
        eos_id=prompt.eos,
    )
    model = SpeechLLM(config, acoustic=acoustic, llm=llm)
    if recipe.llm.config is not None or recipe.llm.random:
        model.interface.open()
    # Afterwards, for transformers looks for tied weights by their plain names.
    model.llm = with_policy(llm, recipe.llm, units)
    if bridge.init is not None:
        trained = load_model(model_folder(bridge.init)).model
        if not isinstance(trained, SpeechLLM):
            raise ConfigError("it is no speech LLM", where="bridge.init", remedy="name a speech_llm run")
        try:
            model.bridge.load_state_dict(trained.bridge.state_dict())
            if trained.config.interface == recipe.interface:
                model.interface.load_state_dict(trained.interface.state_dict())
        except RuntimeError:
            raise ConfigError(
                "its bridge or interface has another shape", where="bridge.init", remedy="same kind and sizes"
            ) from None
    if bridge.policy == "frozen":
        model.bridge.requires_grad_(False)
        model.interface.requires_grad_(False)
    return model


def build_adaptation(recipe: Recipe, log: Log) -> Task:
    """A finished speech LLM, frozen but for what is adapted, and the domain's speech or text."""
    settings, replay = recipe.adapt, recipe.replay
    assert settings is not None  # noqa: S101  (validated by Recipe)
    folder = model_folder(settings.model)
    loaded = load_model(folder)
    model, units = loaded.model, loaded.units
    if not isinstance(model, SpeechLLM):
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
        if not model.config.show_ctc:
            log("warning: the base has no show_ctc; its speech prompts do not look like those that text gives it")
        new, dev = _sentences(recipe, units, log)
        replayed = (units.encode(text)[: recipe.text.max_labels] for text in _transcripts(Path(recipe.data_root), old))
        sentences = [*new, *(labels for labels in replayed if labels)]
        bank = build_bank(recipe, units, log)
        return TextAdaptationTask(recipe, base, model, units, sentences, len(new), dev, bank)
    train, dev_speech = _speech(recipe, units, log)
    num_new = len(train.utterances)
    if old:
        train.utterances = [*train.utterances, *_training_rows(recipe, "replay", old, units, log)]
    return AdaptationTask(recipe, base, model, units, train, num_new, dev_speech)


def model_folder(path_or_id: str) -> str:
    """A run folder stands for the model it exported."""
    exported = Path(path_or_id) / "model"
    return str(exported) if exported.is_dir() else path_or_id


def transformers_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """A transformers configuration from a recipe's mapping.

    Raises:
        ConfigError: There is no such model type, or a value does not fit it.
    """
    with _refusals(where):
        return AutoConfig.for_model(**values)


@contextmanager
def _refusals(where: str) -> Iterator[None]:
    """What transformers says to a configuration of the recipe, as one line that names the key."""
    try:
        yield
    except KikitoriError:
        raise
    except Exception as error:  # noqa: BLE001  (what a wrong configuration can raise in transformers has no end)
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(f"transformers refuses it ({reason})", where=where, remedy="mend the value") from None


def _start(settings: Encoder) -> tuple[SpeechEncoder | AcousticModel, TokenizerUnits | None]:
    """The encoder, or the acoustic model around it with the units that its heads write."""
    if settings.config is not None:
        config = transformers_config(settings.config, "encoder.config")
        with _refusals("encoder.config"):
            return SpeechEncoder(config), None
    folder = model_folder(str(settings.init))
    if settings.random:
        return SpeechEncoder(_encoder_shape(folder)), None
    if not is_recogniser(folder):
        return SpeechEncoder.from_pretrained(folder), None
    loaded = load_model(folder)
    model = loaded.model
    return (model.acoustic if isinstance(model, SpeechLLM) else model), loaded.units


def _encoder_shape(folder: str) -> Any:
    config: Any = load_config(folder)
    if isinstance(config, SpeechLLMConfig):
        config = config.acoustic_config
    return config.encoder_config if is_recogniser(folder) else SpeechEncoder.pretrained_config(folder)


def _random_llm(config: PreTrainedConfig, where: str) -> PreTrainedModel:
    with _refusals(where):
        llm: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return llm


def _equal(some: TokenizerUnits, others: TokenizerUnits) -> bool:
    return bool(some.tokenizer.get_vocab() == others.tokenizer.get_vocab())


def _template(recipe: Recipe) -> PromptTemplate:
    settings = recipe.prompt
    given: dict[str, Any] = {
        "before": settings.before,
        "after": settings.after,
        "bos": settings.bos,
        "eos": settings.eos,
    }
    return replace(PRESETS[settings.preset], **{key: value for key, value in given.items() if value is not None})


def _sentences(recipe: Recipe, units: TokenizerUnits, log: Log) -> tuple[list[list[int]], list[list[int]]]:
    """Training and held-out sentences as labels."""
    text = recipe.text
    assert text is not None  # noqa: S101  (validated by Recipe)
    lines = list(text_lines(Path(recipe.data_root), text))
    count = min(text.dev_lines, len(lines) // 2)
    held_out = {int(i * len(lines) / count) for i in range(count)}
    sentences = [units.encode(line)[: text.max_labels] for line in lines]
    train = [labels for i, labels in enumerate(sentences) if labels and i not in held_out]
    dev = [labels for i, labels in enumerate(sentences) if labels and i in held_out]
    log(f"train: {len(train)} sentences, {sum(map(len, train)) / 1e6:.2f} M labels; dev: {len(dev)} sentences")
    return train, dev


def _freeze_plan(settings: Encoder) -> Any:
    if settings.policy == "frozen":
        return "all"
    return "conv_front_end" if settings.freeze_conv_front_end else "none"


def _speech(recipe: Recipe, units: TokenizerUnits, log: Log) -> tuple[SpeechLoader, SpeechLoader | None]:
    data = recipe.data
    assert data is not None  # noqa: S101  (validated by Recipe)
    kept = _training_rows(recipe, "train", data.train, units, log)
    train = SpeechLoader(
        kept, _waveform_augment(recipe), seed=recipe.seed, cache=data.cache_audio, on_error=data.on_error
    )
    if not data.dev:
        return train, None
    held_out = _dev_rows(recipe, log)
    if data.max_dev_utterances and len(held_out) > data.max_dev_utterances:
        step = len(held_out) / data.max_dev_utterances
        held_out = [held_out[int(i * step)] for i in range(data.max_dev_utterances)]
    log(f"dev: {len(held_out)} utterances, {sum(u.duration for u in held_out) / 3600:.2f} h")
    return train, SpeechLoader(held_out, cache=data.cache_audio, on_error=data.on_error)


def _training_rows(
    recipe: Recipe, what: str, refs: Sequence[ManifestRef], units: TokenizerUnits, log: Log
) -> list[Utterance]:
    data = recipe.data
    assert data is not None  # noqa: S101  (validated by Recipe)
    utterances = _rows(recipe, refs, log)
    kept, report = filter_utterances(
        utterances,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        has_labels=lambda text: bool(units.encode(text)),
    )
    for line in report.lines():
        log(f"{what}: {line}")
    if data.on_error == "stop":
        _refuse_missing(utterances)
    if not kept:
        raise DataError("no utterance is left to train on", remedy="see the lines above")
    return kept


def _waveform_augment(recipe: Recipe) -> WaveformAugment:
    return WaveformAugment(
        speeds=recipe.augment.speeds,
        gain_db=recipe.augment.gain_db,
        noise_probability=recipe.augment.noise_probability,
        noise_snr_db=recipe.augment.noise_snr_db,
    )


def _dev_rows(recipe: Recipe, log: Log) -> list[Utterance]:
    data = recipe.data
    assert data is not None  # noqa: S101  (validated by Recipe)
    rows = [utterance for utterance in _rows(recipe, data.dev, log) if utterance.text is not None]
    if data.on_error == "stop":
        _refuse_missing(rows)
    for utterance in rows:
        if not utterance.audio_filepath.is_file():
            log(f"warning: {utterance.audio_filepath}: no such file; left out of dev")
    rows = [utterance for utterance in rows if utterance.audio_filepath.is_file()]
    if not rows:
        raise DataError("no utterance has both audio and text", where="data.dev", remedy="check the manifests")
    return rows


def _refuse_missing(utterances: Sequence[Utterance]) -> None:
    missing = [utterance.audio_filepath for utterance in utterances if not utterance.audio_filepath.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        raise DataError(f"no such file{more}", where=missing[0], remedy="check the manifest or set data.on_error=skip")


def _rows(recipe: Recipe, refs: Sequence[ManifestRef], log: Log) -> list[Utterance]:
    assert recipe.data is not None  # noqa: S101  (validated by Recipe)
    rows: list[Utterance] = []
    for ref in refs:
        path = Path(recipe.data_root) / ref.path
        manifest = read_manifest(path, split=ref.split, on_error=recipe.data.on_error)
        for problem in manifest.problems:
            log(f"warning: {problem}; line left out")
        rows += manifest.utterances * ref.repeat
    return rows


def _transcripts(root: Path, refs: Sequence[ManifestRef]) -> Iterator[str]:
    for ref in refs:
        for utterance in read_manifest(root / ref.path, split=ref.split, on_error="skip").utterances:
            if utterance.text:
                yield from [utterance.text] * ref.repeat
