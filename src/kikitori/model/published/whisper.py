"""Whisper recognisers in the layout of transformers, read as they are."""

from pathlib import Path
from typing import Any

from transformers import WhisperForConditionalGeneration

from kikitori.model.encoder_decoder import EncoderDecoder, language_code, read_rules
from kikitori.model.safety.config import read_json
from kikitori.model.safety.load import check_loaded, encoder_alone, other_units, read_weights
from kikitori.text.units import TokenizerUnits, load_units

MODEL_TYPE = "whisper"


def load_whisper(path_or_id: str | Path, config: dict[str, Any]) -> Any:
    """The `WhisperForConditionalGeneration` of a folder or the hub; these often carry buffers of old releases.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or there is an encoder alone.
    """
    whisper, info = read_weights(WhisperForConditionalGeneration, path_or_id, config)
    if "model.decoder.embed_positions.weight" in info["missing_keys"]:
        raise encoder_alone(path_or_id, MODEL_TYPE)
    check_loaded(path_or_id, whisper, sorted(info["missing_keys"]))
    return whisper


def whisper_recogniser(
    path_or_id: str | Path, whisper: Any, language: str | None
) -> tuple[EncoderDecoder, TokenizerUnits]:
    """A Whisper with the rules and units that lie beside it.

    Raises:
        ModelError: A file is missing or damaged, or the model does not know the language.
    """
    values, vocabulary = read_json(path_or_id, "generation_config.json"), int(whisper.config.vocab_size)
    rules, units = read_rules(path_or_id, values, vocabulary), load_units(path_or_id)
    if units.size > vocabulary or units.eos_id != rules.eos:
        raise other_units(path_or_id, units.size, vocabulary)
    model = EncoderDecoder(whisper, rules, language_code(path_or_id, rules, language or values.get("language")))
    return model.eval(), units
