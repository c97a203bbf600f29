"""Each encoder family with each LLM family, from a recipe alone: one step, saved, loaded, decoded.

Bridges and policies take turns, so that each family meets several of them.
"""

import json
from itertools import product
from math import isfinite

import pytest
import torch

import kikitori
from kikitori.model.folder import load_llm
from kikitori.model.safety.config import quiet_transformers
from kikitori.train.run import train
from tests.tiny import BRIDGES, ENCODERS, LLMS, save_tiny_llm, tiny_acoustic_model, tiny_bpe, tiny_waveforms
from tests.train.helpers import merged, speech_llm_recipe, write_corpus, write_recipe

POLICIES = ("full", "lora", "frozen")
LORA = {"rank": 2, "rank_stabilised": True}
STRIDES = {"conv": 4, "stack": 3}


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Seven recordings, and a folder for each encoder and each LLM, as they are published."""
    folder = tmp_path_factory.mktemp("parts")
    write_corpus(folder)
    with quiet_transformers():
        for family in ENCODERS:
            tiny_acoustic_model(family).encoder.model.save_pretrained(folder / family)
    for family in LLMS:
        save_tiny_llm(folder / family, family, units=tiny_bpe("characters" if family == "llama" else "bytes"))
    return folder


@pytest.mark.parametrize(
    ("encoder", "llm"),
    [
        pytest.param(encoder, llm, marks=() if (row - column) % 3 == 0 else pytest.mark.slow)
        for (row, encoder), (column, llm) in product(enumerate(ENCODERS), enumerate(LLMS))
    ],
)
def test_a_pair_takes_a_step_and_is_saved_loaded_and_decoded(parts, tmp_path, encoder, llm):
    row, column = ENCODERS.index(encoder), LLMS.index(llm)
    bridge = BRIDGES[(row + column) % len(BRIDGES)]
    of_encoder, of_llm = POLICIES[(row + column) % 3], POLICIES[(row + 2 * column) % 3]
    values = speech_llm_recipe(
        units={"kind": "llm", "text_form": "as_is"},
        data={"dev": [], "batch_seconds": 20.0, "max_batch_size": 7},
        encoder={"init": str(parts / encoder), "policy": of_encoder, "lr_factor": 0.1},
        bridge={"kind": bridge, "stride": STRIDES.get(bridge, 1)},
        llm={"init": str(parts / llm), "policy": of_llm},
        run={"epochs": 1, "log_every": 1},
    )
    for part, policy in (("encoder", of_encoder), ("llm", of_llm)):
        values = merged(values, {part: {"lora": dict(LORA)}} if policy == "lora" else {})
    train(write_recipe(tmp_path / "recipe.yaml", parts, values), tmp_path / "run")
    first, *_ = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert first["step"] == 1
    assert isfinite(first["loss"])

    recognizer = kikitori.load(tmp_path / "run" / "model")
    model = recognizer.loaded.model
    assert (model.acoustic.encoder.config.model_type.removesuffix("_encoder"), model.llm.config.model_type) == (
        encoder,
        llm,
    )
    before, after = load_llm(parts / llm).state_dict(), model.llm.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before) == (of_llm == "frozen")
    audio = tiny_waveforms(3, seconds=(0.6, 1.4))
    together = recognizer.recognize(audio, decoding="greedy")
    alone = [recognizer.recognize([waveform], decoding="greedy")[0] for waveform in audio]
    assert [(h.text, h.labels) for h in together] == [(h.text, h.labels) for h in alone]
