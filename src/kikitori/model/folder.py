"""Model folders: safe loading of what `save_pretrained` wrote, and saving of a whole recogniser.

A folder holds `config.json`, `model.safetensors` (one file or shards), tokenizer files, `processor_config.json` and
`generation_config.json`. Nothing but safetensors and JSON is read; pickles are refused with the reason. The published
models of paper A and encoder-decoders such as Whisper, which have layouts of their own, are read as they are (see
`kikitori.model.published`).
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from kikitori.errors import ModelError
from kikitori.io.files import open_weights
from kikitori.io.model_folder import AROUND, BASE, CTC_UNITS, ModelType, around, forget_places
from kikitori.model.acoustic import FORMAT_VERSION, AcousticNetwork
from kikitori.model.encoder import MODEL_CLASSES as ENCODERS
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.published.aed import FAMILIES, encoder_decoder, family_of, load_network
from kikitori.model.published.part import base_names, find_base, load_heads
from kikitori.model.published.second_decoder import load_second_decoder
from kikitori.model.safety.config import (
    check_config,
    check_format_version,
    check_llm_type,
    one_line_errors,
    quiet_transformers,
    read_json,
)
from kikitori.model.safety.fetch import fetched
from kikitori.model.safety.load import encoder_alone, load_weights, other_units
from kikitori.model.safety.trained_on import read_trained_on
from kikitori.text.units import TokenizerUnits, equal_units, load_units
from kikitori.types import TrainedOn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from kikitori.model.speech_llm import SpeechLLM

    Recogniser = AcousticNetwork | SpeechLLM | EncoderDecoder
    """The networks that write text."""


@dataclass(frozen=True)
class LoadedModel:
    """A recogniser in memory.

    Attributes:
        model: The network.
        units: Label units of its decoder, and of its CTC heads unless these have others.
        trained_on: What its training data were like.
        own_ctc_units: Label units of the CTC heads where the decoder writes others.
    """

    model: "Recogniser"
    units: TokenizerUnits
    trained_on: TrainedOn
    own_ctc_units: TokenizerUnits | None = None

    @property
    def ctc_units(self) -> TokenizerUnits:
        """Label units of the CTC heads."""
        return self.own_ctc_units or self.units


def save_model(
    directory: Path,
    model: "PreTrainedModel",
    units: TokenizerUnits,
    trained_on: TrainedOn,
    own_ctc_units: TokenizerUnits | None = None,
) -> None:
    """Writes a recogniser folder, in `ctc_units/` the units of CTC heads that write others than the decoder.

    Raises:
        ModelError: The folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)  # transformers is silent where a file is in the way
        save_network(directory, model)
        open_weights(directory)
        save_sides(directory, units, trained_on)
        if own_ctc_units is not None:
            own_ctc_units.save(directory / CTC_UNITS)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot be written ({reason})", where=directory, remedy="check the path and the free space"
        ) from None


def save_network(directory: Path, network: "PreTrainedModel") -> None:
    """Writes the weights and `config.json` of any network, which do not tell where it was loaded from.

    Raises:
        OSError: The folder cannot be written.
    """
    with quiet_transformers():
        network.save_pretrained(directory)
    forget_places(directory)


def save_sides(directory: Path, units: TokenizerUnits, trained_on: TrainedOn) -> None:
    """Writes what a recogniser folder holds beside network and configuration.

    Raises:
        OSError: The folder cannot be written.
    """
    from transformers import GenerationConfig

    from kikitori.model.processor import SpeechProcessor

    with quiet_transformers():
        SpeechProcessor(units.pretrained).save_pretrained(directory)
        units.save(directory)
        GenerationConfig(eos_token_id=units.eos_id, **asdict(trained_on)).save_pretrained(directory)


def load_model(path_or_id: str | Path, *, language: str | None = None) -> LoadedModel:
    """Loads a recogniser in float32, in evaluation mode.

    Args:
        path_or_id: A folder of ours, one in the layout of `rinna/nue-asr` or of Whisper and other encoder-decoders in
            transformers, or the id of such a model on the Hugging Face hub.
        language: Code of the language of all recordings, for a model that knows several.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the folder holds something else, or the model does not know
            the language.
    """
    config = read_json(path_or_id, "config.json")
    if family_of(path_or_id, config) is not None:
        units = load_units(path_or_id)
        model = encoder_decoder(path_or_id, load_network(path_or_id, config, units), units, language)
        return LoadedModel(model, units, model.trained_on)
    match str(config.get("model_type")):
        case ModelType.NUE_ASR:
            from kikitori.model.published.nue_asr import TRAINED_ON, load_published

            loaded = LoadedModel(*load_published(path_or_id), TRAINED_ON)
        case ModelType.ACOUSTIC_MODEL if BASE in config:
            loaded = _load_part(path_or_id, config)
        case ModelType.SPEECH_LLM if AROUND in base_names(config):
            loaded = with_speech_llm(load_model(around(Path(path_or_id)) or path_or_id), path_or_id)
        case ModelType.SPEECH_LLM if BASE in config:
            loaded = _load_speech_llm_part(path_or_id, config)
        case _:
            loaded = _load_own(path_or_id, config)
    if language not in (None, own := loaded.trained_on.language):
        raise ModelError(f"the model writes '{own}', not '{language}'", where=path_or_id, remedy="leave --language out")
    return loaded


def with_speech_llm(loaded: LoadedModel, folder: str | Path) -> LoadedModel:
    """The second decoder in a recogniser's folder, on that one's encoder and heads, which are in memory once.

    Args:
        loaded: The recogniser.
        folder: Of the second decoder.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the recogniser is another one than in its training.
    """
    config = read_json(folder, "config.json")
    check_format_version(folder, config, FORMAT_VERSION)
    model, units = load_second_decoder(folder, config, loaded.model.acoustic, load_llm), load_units(folder)
    others = None if equal_units(loaded.ctc_units, units) else loaded.ctc_units
    _check_units(folder, model, units, others)
    return LoadedModel(model, units, read_trained_on(folder), others)


def _load_own(path_or_id: str | Path, config: dict[str, Any]) -> LoadedModel:
    """A folder that `save_model` wrote."""
    model_type = str(config.get("model_type"))
    if model_type in ENCODERS:
        raise encoder_alone(path_or_id, model_type)
    check_format_version(path_or_id, config, FORMAT_VERSION)
    model = load_weights(_own_class(path_or_id, model_type), path_or_id, config, may_hold_more=False)
    units, ctc_units = load_units(path_or_id), _own_ctc_units(path_or_id)
    _check_units(path_or_id, model, units, ctc_units)
    return LoadedModel(model.eval(), units, read_trained_on(path_or_id), ctc_units)


def _own_class(path_or_id: str | Path, model_type: str) -> type["PreTrainedModel"]:
    from kikitori.model.acoustic_model import AcousticModel
    from kikitori.model.speech_llm import SpeechLLM

    match model_type:
        case ModelType.ACOUSTIC_MODEL:
            return AcousticModel
        case ModelType.SPEECH_LLM:
            return SpeechLLM
    raise ModelError(
        f"model type '{model_type}' is no recogniser",
        where=path_or_id,
        remedy=f"give a folder that kikitori train wrote (RUN/model), or one of {', '.join(FAMILIES)}",
    )


def load_llm(path_or_id: str | Path) -> "PreTrainedModel":
    """Loads a decoder-only language model, or that of a speech LLM, in float32.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or the model is not decoder-only.
    """
    if is_recogniser(path_or_id):
        recogniser = load_model(path_or_id).model.speech_llm
        if recogniser is None:
            raise ModelError("an acoustic model has no LLM", where=path_or_id, remedy="name a speech LLM or an LLM")
        return recogniser.llm  # type: ignore[no-any-return]
    from transformers import AutoModelForCausalLM

    config = read_json(path_or_id, "config.json")
    check_llm_type(path_or_id, config)
    # Public checkpoints often carry buffers of old releases beside their weights.
    llm: PreTrainedModel = load_weights(AutoModelForCausalLM, path_or_id, config, may_hold_more=True)
    return llm


def load_config(path_or_id: str | Path) -> "PreTrainedConfig":
    """Loads the configuration of any model, for one of the same shape.

    Raises:
        ModelError: It is missing, damaged or asks for code.
    """
    from transformers import AutoConfig

    import kikitori.model.speech_llm  # noqa: F401  (with which transformers knows our recognisers)

    check_config(path_or_id, read_json(path_or_id, "config.json"))
    with one_line_errors(path_or_id), quiet_transformers():
        config: PreTrainedConfig = AutoConfig.from_pretrained(str(path_or_id), trust_remote_code=False)
    return config


def is_recogniser(path_or_id: str | Path) -> bool:
    """True if this is a recogniser of ours and not, say, a bare encoder.

    Raises:
        ModelError: There is no readable config.json.
    """
    return str(read_json(path_or_id, "config.json").get("model_type")) in [*ModelType]


def _load_part(path_or_id: str | Path, config: dict[str, Any]) -> LoadedModel:
    """CTC heads that name the Whisper, or other encoder-decoder, on whose encoder they stand, with its decoder."""
    check_format_version(path_or_id, config, FORMAT_VERSION)
    base = fetched(find_base(str(config[BASE].get("name")), path_or_id))
    about, units = read_json(base, "config.json"), load_units(base)
    network = load_network(base, about, units)
    heads, shared = load_heads(path_or_id, config, network)
    ctc_units, language = load_units(path_or_id), read_trained_on(path_or_id).language
    _check_units(path_or_id, heads, ctc_units)
    model = encoder_decoder(base, network, units, language, heads, shared)
    return LoadedModel(model, units, model.trained_on, ctc_units)


def _load_speech_llm_part(path_or_id: str | Path, config: dict[str, Any]) -> LoadedModel:
    """Bridge, adapters and heads of a speech LLM that name its Whisper and its LLM."""
    from kikitori.model.published.speech_llm_part import load_speech_llm_part

    check_format_version(path_or_id, config, FORMAT_VERSION)
    model, units = load_speech_llm_part(path_or_id, config, load_llm), load_units(path_or_id)
    ctc_units = _own_ctc_units(path_or_id)
    _check_units(path_or_id, model, units, ctc_units)
    model.eval()  # type: ignore[no-untyped-call]
    return LoadedModel(model, units, read_trained_on(path_or_id), ctc_units)


def load_ctc_units(path_or_id: str | Path) -> TokenizerUnits:
    """Loads the label units of a recogniser's CTC heads.

    Raises:
        ModelError: They are missing or damaged.
    """
    if (outer := around(Path(path_or_id))) is not None:
        return load_ctc_units(outer)
    return _own_ctc_units(path_or_id) or load_units(path_or_id)


def _own_ctc_units(path_or_id: str | Path) -> TokenizerUnits | None:
    others = Path(path_or_id) / CTC_UNITS
    return load_units(str(others)) if others.is_dir() else None


def _check_units(
    path_or_id: str | Path,
    model: "AcousticNetwork | SpeechLLM",
    units: TokenizerUnits,
    ctc_units: TokenizerUnits | None = None,
) -> None:
    heads, speech_llm = model.acoustic.config, model.speech_llm
    if heads.ctc_layers and heads.num_units != (written := (ctc_units or units).size):
        raise other_units(path_or_id, written, heads.num_units)
    # An output matrix may be padded to a round size.
    if speech_llm is not None and (rows := int(speech_llm.llm.get_input_embeddings().num_embeddings)) < units.size:
        raise other_units(path_or_id, units.size, rows)
