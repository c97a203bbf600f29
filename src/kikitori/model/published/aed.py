"""Encoder-decoder recognisers (AED) in the layout of transformers, read as they are: Whisper, Moonshine and others.

What differs between families is in `FAMILIES`: the network's class, how its decoder is put together, and what stands
before a transcript. Folders of CTranslate2 count as Whisper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kikitori.errors import ModelError
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.decoder.encoder_decoder import TranscriptRules, layout
from kikitori.model.encoder.pretrained import read_preprocessor
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.published.generation import Source
from kikitori.model.published.transcript_rules import (
    canary_rules,
    cohere_rules,
    speech_to_text_rules,
    untold_rules,
    whisper_rules,
)
from kikitori.model.published.whisper import MODEL_TYPE as WHISPER
from kikitori.model.published.whisper import is_whisper, load_whisper, whisper_values
from kikitori.model.safety.config import one_line_errors, read_json
from kikitori.model.safety.load import check_loaded, encoder_alone, other_units, read_weights
from kikitori.text.units import TokenizerUnits

FIRST_OF_DECODER = "model.decoder.layers.0.self_attn.q_proj.weight"
"""A tensor without which there is no decoder."""


@dataclass(frozen=True)
class Family:
    """A family of encoder-decoders.

    Attributes:
        name: For users.
        network: Its class within `transformers.models`.
        layout: How its decoder is put together.
        rules: What stands before transcripts, and the language by its code.
        max_seconds: The longest utterance that it was trained on; longer recordings are cut at pauses.
    """

    name: str
    network: str
    layout: layout.DecoderLayout
    rules: Callable[[Source], tuple[TranscriptRules, str | None]]
    max_seconds: float


FAMILIES = {
    WHISPER: Family(
        "Whisper", "whisper.modeling_whisper.WhisperForConditionalGeneration", layout.WHISPER, whisper_rules, 30.0
    ),
    "moonshine": Family(
        "Moonshine",
        "moonshine.modeling_moonshine.MoonshineForConditionalGeneration",
        layout.MOONSHINE,
        untold_rules,
        30.0,
    ),
    "moonshine_streaming": Family(
        "Moonshine Streaming",
        "moonshine_streaming.modeling_moonshine_streaming.MoonshineStreamingForConditionalGeneration",
        layout.MOONSHINE_STREAMING,
        untold_rules,
        30.0,
    ),
    "speech_to_text": Family(
        "Speech2Text",
        "speech_to_text.modeling_speech_to_text.Speech2TextForConditionalGeneration",
        layout.SPEECH_TO_TEXT,
        speech_to_text_rules,
        30.0,
    ),
    "cohere_asr": Family(
        "Cohere ASR",
        "cohere_asr.modeling_cohere_asr.CohereAsrForConditionalGeneration",
        layout.COHERE,
        cohere_rules,
        35.0,
    ),
    "canary": Family(
        "Canary", "canary.modeling_canary.CanaryForConditionalGeneration", layout.CANARY, canary_rules, 40.0
    ),
}
"""By the model type in `config.json`."""


def family_of(path_or_id: str | Path, config: Mapping[str, Any]) -> Family | None:
    """The family of a folder, or of a model on the hub, by its `config.json`; None if it is no encoder-decoder."""
    return FAMILIES.get(WHISPER if is_whisper(path_or_id, config) else str(config.get("model_type")))


def load_network(path_or_id: str | Path, config: dict[str, Any], units: TokenizerUnits | None = None) -> Any:
    """The network of an encoder-decoder, a `Whisper` or of the class that transformers has for it, in float32.

    Args:
        path_or_id: Where it lies.
        config: Its `config.json`.
        units: Those that lie beside it, where they are loaded already.

    Raises:
        ModelError: It is none, or a file is missing, damaged or unsafe, or there is an encoder alone.
    """
    if is_whisper(path_or_id, config):
        return load_whisper(path_or_id, config, units)
    model_type = str(config.get("model_type"))
    if (family := family_of(path_or_id, config)) is None:
        raise ModelError(
            f"model type '{model_type}' is no encoder-decoder that is supported",
            where=path_or_id,
            remedy=f"use one of {', '.join(FAMILIES)}",
        )
    module, _, name = family.network.rpartition(".")
    with one_line_errors(path_or_id):  # an old release of transformers may not have it
        network_class = getattr(import_module(f"transformers.models.{module}"), name)
    network, info = read_weights(network_class, path_or_id, config)
    if FIRST_OF_DECODER in info["missing_keys"]:
        raise encoder_alone(path_or_id, model_type)
    check_loaded(path_or_id, network, sorted(info["missing_keys"]))
    read_preprocessor(path_or_id, None, network.model.encoder.config)
    return network


def encoder_decoder(
    path_or_id: str | Path,
    network: Any,
    units: TokenizerUnits,
    language: str | None,
    heads: AcousticNetwork | None = None,
    shared_layers: int = 0,
) -> EncoderDecoder:
    """A network with the units and rules that lie beside it, and perhaps CTC heads (see `EncoderDecoder`).

    Raises:
        ModelError: A file is missing or damaged, or the model does not know the language.
    """
    family, vocabulary = FAMILIES[network.config.model_type], int(network.config.vocab_size)
    if network.config.model_type == WHISPER:
        values = whisper_values(path_or_id, units)
    else:
        values = read_json(path_or_id, "generation_config.json")
    rules, code = family.rules(Source(path_or_id, values, network.model.decoder.config, units, language))
    if units.size > vocabulary or units.eos_id != rules.eos:
        raise other_units(path_or_id, units.size, vocabulary)
    return EncoderDecoder(network, family.layout, rules, code, family.max_seconds, heads, shared_layers).eval()
