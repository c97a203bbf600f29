import json

import pytest

from kikitori.errors import KikitoriWarning, ModelError
from kikitori.model.folder import load_model
from kikitori.model.published import generation
from tests.tiny import save_tiny_whisper, tiny_units, tiny_whisper, tiny_whisper_units

UNITS = tiny_whisper_units()
START, ENGLISH, JAPANESE, TRANSCRIBE, TRANSLATE, NO_TIMES = (
    UNITS.special_id(f"<|{name}|>")
    for name in ("startoftranscript", "en", "ja", "transcribe", "translate", "notimestamps")
)


def folder_without(folder, *, multilingual, **entries):
    """A Whisper without `generation_config.json`, with some entries of `config.json`."""
    save_tiny_whisper(folder, tiny_whisper(multilingual=multilingual))
    (folder / generation.GENERATION).unlink()
    file = folder / "config.json"
    values = json.loads(file.read_text()) | entries
    file.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))
    return folder


@pytest.mark.parametrize("multilingual", [False, True])
def test_a_whisper_without_the_file(tmp_path, monkeypatch, multilingual):
    monkeypatch.setattr(generation, "SMALLEST_MULTILINGUAL", UNITS.size if multilingual else UNITS.size + 1)
    with pytest.warns(KikitoriWarning, match=r"no generation_config.json; start, languages and .* come from config"):
        found = load_model(folder_without(tmp_path, multilingual=multilingual, suppress_tokens=[30])).model
    save_tiny_whisper(tmp_path / "whole", tiny_whisper(multilingual=multilingual))
    rules, whole = found.rules, load_model(tmp_path / "whole").model.rules
    assert (rules.prompt, rules.eos, rules.languages) == (whole.prompt, whole.eos, whole.languages)
    assert rules.suppressed == (30, START, TRANSCRIBE, TRANSLATE)
    assert rules.suppressed_first == (*UNITS.encode(" "), UNITS.eos_id)
    assert found.language == (None if multilingual else "en")


def test_what_training_has_written_into_the_configuration_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(generation, "SMALLEST_MULTILINGUAL", UNITS.size)
    forced = [[1, JAPANESE], [2, TRANSCRIBE], [3, NO_TIMES]]
    folder = folder_without(tmp_path, multilingual=True, forced_decoder_ids=forced, begin_suppress_tokens=[])
    with pytest.warns(KikitoriWarning):
        found = load_model(folder).model
    assert (found.language, found.rules.suppressed_first) == ("ja", ())
    (folder / "config.json").write_text(
        json.dumps(json.loads((folder / "config.json").read_text()) | {"suppress_tokens": ["a"]})
    )
    with pytest.warns(KikitoriWarning), pytest.raises(ModelError, match="no label of the decoder as suppress_tokens"):
        load_model(folder)


def test_a_tokenizer_without_the_labels_before_a_transcript():
    with pytest.raises(ModelError, match=r"the tokenizer has no <\|startoftranscript\|>; copy the file from the model"):
        generation.derived_values("somewhere", {}, tiny_units())
