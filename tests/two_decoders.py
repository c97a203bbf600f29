"""A tiny model folder with two decoders: a Whisper with CTC heads over letters, and a speech LLM over BPE within it."""

import shutil
from pathlib import Path

import pytest
import torch

from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.folder import load_model, save_model
from kikitori.model.published.convert import convert_decoder, convert_heads
from kikitori.model.published.part import PARTS
from kikitori.model.speech_llm import SpeechLLM
from kikitori.text.unit_training import character_units
from kikitori.types import TrainedOn
from tests.tiny import save_tiny_whisper, shake, tiny_bpe, tiny_llm, tiny_speech_llm, tiny_whisper

LETTERS = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")
WHISPER = "whisper-tiny"


def save_heads(folder: Path, work: Path) -> None:
    """Writes a Whisper with CTC heads, which lies in the same folder."""
    torch.manual_seed(1)
    save_tiny_whisper(work / WHISPER, tiny_whisper())
    encoder = SpeechEncoder.from_pretrained(work / WHISPER)
    shake(encoder.layers[-1], 3, 0.05)
    encoder.set_window("speech")
    config = AcousticModelConfig(encoder_config=encoder.config, ctc_layers=[2], num_units=LETTERS.size)
    heads = AcousticModel(config, encoder=encoder)
    heads.ctc_heads["2"].linear.weight.data *= 20.0  # so that it writes something
    save_model(work / "heads", heads, LETTERS, TrainedOn(20.0, 2.0, "en"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARTS, str(work))
        convert_heads(work / "heads", f"someone/{WHISPER}", folder)
    shutil.copytree(work / WHISPER, folder / WHISPER)


def save_run(run: Path, folder: Path) -> SpeechLLM:
    """Writes the run of a speech LLM on the encoder and heads of a folder, which may have come out of training."""
    loaded, units = load_model(folder), tiny_bpe()
    body = tiny_llm("qwen2", units.size)  # with tied embeddings
    model = tiny_speech_llm(acoustic=loaded.model.acoustic, body=body, bridge="conv", units=units)
    save_model(run / "model", model, units, TrainedOn(10.0, 1.8, "en"), loaded.ctc_units)
    return model


def save_two_decoders(folder: Path, work: Path) -> SpeechLLM:
    """Writes the folder, and into another one what it is made of; returns the speech LLM before it was rounded."""
    save_heads(folder, work)
    model = save_run(work / "run", folder)
    convert_decoder(work / "run", folder)
    return model
