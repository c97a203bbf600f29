"""From a recipe to an encoder with CTC heads, each with its start and policy."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from kikitori.errors import ConfigError, KikitoriError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig, as_acoustic_model
from kikitori.model.adapters.lora import Lora, attach_encoder_lora
from kikitori.model.encoder import SpeechEncoder, freeze, freeze_below
from kikitori.model.folder import is_recogniser, load_config, load_ctc_units, load_model
from kikitori.model.speech_llm import SpeechLLMConfig
from kikitori.text.units import TokenizerUnits, equal_units
from kikitori.train.recipe.components import CTC, Encoder


def build_acoustic_model(
    settings: Encoder, ctc: CTC, units: TokenizerUnits, phones: Sequence[str] = ()
) -> AcousticModel:
    """Encoder and CTC heads, from scratch or from where the recipe says; heads of a run with the same labels go on.

    Args:
        settings: Of the encoder.
        ctc: Of the heads.
        units: Labels that the heads write: the recipe's, or `own_ctc_units`.
        phones: What the phone heads write.
    """
    start, start_units = _start(settings)
    encoder = start.encoder if isinstance(start, AcousticModel) else start
    layers, by_phones = sorted(ctc.weights), ctc.phones
    config = AcousticModelConfig(
        encoder_config=encoder.config,
        ctc_layers=layers,
        num_units=units.size,
        phones=list(phones),
        phone_layers=sorted(by_phones.weights) if by_phones else (),
        phone_upsample=by_phones.upsample if by_phones else 1,
    )
    if max([*layers, *config.phone_layers, ctc.character_layer]) > encoder.num_layers:
        raise ConfigError(f"the encoder has layers 1 to {encoder.num_layers}", where="ctc", remedy="mend the layers")
    model = AcousticModel(config, encoder=encoder)
    if isinstance(start, AcousticModel):
        _take_heads(model, start, same_units=start_units is not None and equal_units(start_units, units))
    _set_policy(encoder, settings)
    if ctc.policy == "frozen":
        model.ctc_heads.requires_grad_(False)
        model.phone_heads.requires_grad_(False)
    return model


def own_ctc_units(settings: Encoder, ctc: CTC, units: TokenizerUnits) -> TokenizerUnits | None:
    """Label units of frozen heads that write others than those of the recipe; None where there are no such heads."""
    if ctc.policy != "frozen" or settings.init is None or settings.random or not is_recogniser(settings.init):
        return None
    theirs = load_ctc_units(settings.init)
    return None if equal_units(theirs, units) else theirs


def build_encoder(settings: Encoder) -> SpeechEncoder:
    """The encoder alone, from scratch or from where the recipe says, as its policy wants it."""
    start, _ = _start(settings)
    encoder = start.encoder if isinstance(start, AcousticModel) else start
    _set_policy(encoder, settings)
    return encoder


def _set_policy(encoder: SpeechEncoder, settings: Encoder) -> None:
    if settings.window != "padded":
        if encoder.family.split is None:
            what = f"an encoder of type '{encoder.config.model_type}' reads no window"
            raise ConfigError(what, where="encoder.window", remedy="leave it out")
        encoder.set_window(settings.window)
    freeze(encoder, _freeze_plan(settings))
    if settings.policy == "top":
        if settings.top_layers > encoder.num_layers:
            what = f"the encoder has {encoder.num_layers} layers"
            raise ConfigError(what, where="encoder.top_layers", remedy="name no more")
        freeze_below(encoder, encoder.num_layers - settings.top_layers)
    if settings.policy == "lora":
        attach_encoder_lora(encoder, settings.lora or Lora())


def _take_heads(model: AcousticModel, start: AcousticModel, *, same_units: bool) -> None:
    """Gives a model the heads of another that write the same labels from the same layers."""
    if same_units:
        for layer in {*model.ctc_heads} & {*start.ctc_heads}:
            model.ctc_heads[layer] = start.ctc_heads[layer]
    new, old = model.config, start.config
    if (new.phones, new.phone_upsample) == (old.phones, old.phone_upsample):
        for layer in {*model.phone_heads} & {*start.phone_heads}:
            model.phone_heads[layer] = start.phone_heads[layer]


def transformers_config(values: dict[str, Any], where: str) -> PreTrainedConfig:
    """A transformers configuration from a recipe's mapping.

    Raises:
        ConfigError: There is no such model type, or a value does not fit it.
    """
    with refusals(where):
        return AutoConfig.for_model(**values)


@contextmanager
def refusals(where: str) -> Iterator[None]:
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
        with refusals("encoder.config"):
            return SpeechEncoder(config), None
    folder = str(settings.init)
    if settings.random:
        with refusals("encoder.changes" if settings.changes else "encoder.init"):
            return SpeechEncoder(_changed(_encoder_shape(folder), settings.changes)), None
    if not is_recogniser(folder):
        return _with_changes(SpeechEncoder.from_pretrained(folder), settings.changes), None
    loaded = load_model(folder)
    model = as_acoustic_model(loaded.model.acoustic)
    model.encoder = _with_changes(model.encoder, settings.changes)
    return model, loaded.ctc_units


def _with_changes(encoder: SpeechEncoder, changes: Mapping[str, Any]) -> SpeechEncoder:
    """The encoder, built anew with another configuration and the same weights."""
    if not changes:
        return encoder
    with refusals("encoder.changes"):
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


def _freeze_plan(settings: Encoder) -> Any:
    if settings.policy == "frozen":
        return "all"
    return "conv_front_end" if settings.freeze_conv_front_end else "none"
