"""From a recipe to networks: encoder, heads, bridge and LLM, each with its start and policy."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from kikitori.errors import ConfigError, KikitoriError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.adapters.lora import attach_encoder_lora, attach_lora
from kikitori.model.decoder.vocabulary import embedding_layers, swap_vocabulary
from kikitori.model.encoder import SpeechEncoder, freeze
from kikitori.model.folder import is_recogniser, load_config, load_llm, load_model, model_folder
from kikitori.model.safety.config import quiet_transformers
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.text.lexicon import read_lexicon
from kikitori.text.prompt import PRESETS, PromptTemplate, compile_prompt
from kikitori.text.units import TokenizerUnits, equal_units, load_units
from kikitori.train.recipe.components import LLM, Encoder, Lora
from kikitori.train.recipe.recipe import Recipe


def build_acoustic_model(recipe: Recipe, units: TokenizerUnits, phones: Sequence[str] = ()) -> AcousticModel:
    """Encoder and CTC heads, from scratch or from where the recipe says; heads of a run with the same labels go on."""
    assert recipe.encoder is not None  # noqa: S101  (validated by Recipe)
    start, start_units = _start(recipe.encoder)
    encoder = start.encoder if isinstance(start, AcousticModel) else start
    layers, by_phones = sorted(recipe.ctc.weights), recipe.ctc.phones
    config = AcousticModelConfig(
        encoder_config=encoder.config,
        ctc_layers=layers,
        num_units=units.size,
        phones=list(phones),
        phone_layers=sorted(by_phones.weights) if by_phones else (),
        phone_upsample=by_phones.upsample if by_phones else 1,
    )
    if max([*layers, *config.phone_layers, recipe.ctc.character_layer]) > encoder.num_layers:
        raise ConfigError(f"the encoder has layers 1 to {encoder.num_layers}", where="ctc", remedy="mend the layers")
    model = AcousticModel(config, encoder=encoder)
    if isinstance(start, AcousticModel):
        _take_heads(model, start, same_units=start_units is not None and equal_units(start_units, units))
    _set_policy(encoder, recipe.encoder)
    if recipe.ctc.policy == "frozen":
        model.ctc_heads.requires_grad_(False)
        model.phone_heads.requires_grad_(False)
    return model


def build_encoder(settings: Encoder) -> SpeechEncoder:
    """The encoder alone, from scratch or from where the recipe says, as its policy wants it."""
    start, _ = _start(settings)
    encoder = start.encoder if isinstance(start, AcousticModel) else start
    _set_policy(encoder, settings)
    return encoder


def _set_policy(encoder: SpeechEncoder, settings: Encoder) -> None:
    freeze(encoder, _freeze_plan(settings))
    if settings.policy == "lora":
        attach_encoder_lora(encoder, **asdict(settings.lora or Lora()))


def _take_heads(model: AcousticModel, start: AcousticModel, *, same_units: bool) -> None:
    """Gives a model the heads of another that write the same labels from the same layers."""
    if same_units:
        for layer in {*model.ctc_heads} & {*start.ctc_heads}:
            model.ctc_heads[layer] = start.ctc_heads[layer]
    new, old = model.config, start.config
    if (new.phones, new.phone_upsample) == (old.phones, old.phone_upsample):
        for layer in {*model.phone_heads} & {*start.phone_heads}:
            model.phone_heads[layer] = start.phone_heads[layer]


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
    if (phones := _shown_phones(recipe)) and embeddings.num_embeddings < units.size + phones:
        with quiet_transformers():
            embeddings = llm.resize_token_embeddings(units.size + phones, mean_resizing=False)
    vocabulary = int(embeddings.num_embeddings)
    if vocabulary < units.size:
        raise ConfigError(
            f"the LLM knows {vocabulary} labels, the units are {units.size}",
            where="units",
            remedy="leave out llm.config.vocab_size, or mend the tokenizer of llm.init",
        )
    return llm


def _shown_phones(recipe: Recipe) -> int:
    """Embeddings beyond those of the label units: phones that a speech prompt or reading practice shows."""
    if recipe.denoising is not None and recipe.denoising.lexicon is not None:
        config: Any = load_config(model_folder(str(recipe.denoising.ctc)))
        acoustic: AcousticModelConfig = config.acoustic_config if isinstance(config, SpeechLLMConfig) else config
        return acoustic.num_phone_outputs
    if recipe.bridge is not None and recipe.bridge.show_phones and recipe.ctc.phones is not None:
        return recipe.ctc.phones.upsample * len(read_lexicon(Path(recipe.ctc.phones.lexicon)).phones)
    return 0


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
    return settings.init is not None and (own is None or not equal_units(own, units))


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


def build_speech_llm(recipe: Recipe, units: TokenizerUnits, phones: Sequence[str] = ()) -> SpeechLLM:
    """Acoustic model, bridge, interface and LLM joined, each with its start and policy."""
    bridge, prompt = recipe.bridge, compile_prompt(_template(recipe), units.verbatim)
    assert bridge is not None  # noqa: S101  (validated by Recipe)
    assert recipe.llm is not None  # noqa: S101  (validated by Recipe)
    acoustic, llm = build_acoustic_model(recipe, units, phones), build_llm(recipe, units)
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
        show_phones=bridge.show_phones,
        show_draft=prompt.draft,
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
        trained = load_model(model_folder(bridge.init)).model.speech_llm
        if trained is None:
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
        with _refusals("encoder.changes" if settings.changes else "encoder.init"):
            return SpeechEncoder(_changed(_encoder_shape(folder), settings.changes)), None
    if not is_recogniser(folder):
        return _with_changes(SpeechEncoder.from_pretrained(folder), settings.changes), None
    loaded = load_model(folder)
    model = loaded.model.acoustic
    model.encoder = _with_changes(model.encoder, settings.changes)
    return model, loaded.units


def _with_changes(encoder: SpeechEncoder, changes: Mapping[str, Any]) -> SpeechEncoder:
    """The encoder, built anew with another configuration and the same weights."""
    if not changes:
        return encoder
    with _refusals("encoder.changes"):
        changed = SpeechEncoder(_changed(encoder.config, changes))
    try:
        changed.load_state_dict(encoder.state_dict())
    except RuntimeError as error:
        what = "its weights do not fit such a configuration"
        raise ConfigError(what, where="encoder.changes", remedy="change dropout and the like; not shapes") from error
    return changed


def _changed(config: Any, changes: Mapping[str, Any]) -> Any:
    """A copy of a configuration with some entries set otherwise."""
    copied = copy.deepcopy(config)
    for name, value in changes.items():
        if not hasattr(copied, name):
            what = f"the configuration has no {name!r}"
            raise ConfigError(what, where="encoder.changes", remedy="look at config.json of encoder.init")
        setattr(copied, name, value)
    return copied


def _encoder_shape(folder: str) -> Any:
    config: Any = load_config(folder)
    if isinstance(config, SpeechLLMConfig):
        config = config.acoustic_config
    return config.encoder_config if is_recogniser(folder) else SpeechEncoder.pretrained_config(folder)


def _random_llm(config: PreTrainedConfig, where: str) -> PreTrainedModel:
    with _refusals(where):
        llm: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    return llm


def _template(recipe: Recipe) -> PromptTemplate:
    settings = recipe.prompt
    given: dict[str, Any] = {
        "before": settings.before,
        "after": settings.after,
        "bos": settings.bos,
        "eos": settings.eos,
    }
    given = {key: value for key, value in given.items() if value is not None}
    return replace(PRESETS[settings.preset], draft=settings.draft is not None, **given)


def _freeze_plan(settings: Encoder) -> Any:
    if settings.policy == "frozen":
        return "all"
    return "conv_front_end" if settings.freeze_conv_front_end else "none"
