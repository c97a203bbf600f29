import sys

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from kikitori.align.ctc import ctc_align
from kikitori.cli import app
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.model.decoder.attention.weights import forward_attention
from kikitori.model.decoder.llm import forward, project
from kikitori.search.options import GreedySearch
from kikitori.workflows.picture import attention_weights, ctc_posteriors, draw_attention, draw_ctc
from tests.tiny import INTERFACES, save_tiny, tiny_acoustic_model, tiny_gpt2, tiny_speech_llm, tiny_units, tiny_waveform

WAVEFORM = tiny_waveform(1.2)
MODELS = {
    **{
        f"{interface} {llm}": {"interface": interface, "llm": llm}
        for interface in INTERFACES
        for llm in ("llama", "qwen2")
    },
    "prefix gpt2": {"body": tiny_gpt2(tiny_units().size, 120)},
    "prefix chat": {"prompt": "nue_asr"},
}


def recogniser(folder, **options):
    save_tiny(folder, tiny_speech_llm(**options))
    return load(folder, device="cpu")


@torch.inference_mode()
@pytest.mark.parametrize("name", MODELS)
def test_attention_is_that_of_the_model_that_decodes(tmp_path, name):
    recognizer = recogniser(tmp_path, **MODELS[name])
    model, memory = recognizer.loaded.model, not name.startswith("prefix")
    usual = model.llm.config._attn_implementation
    heard = recognizer.encode([tiny_waveform(0.7), WAVEFORM])
    rows = model.teacher_input(heard.encoded, [[5, 6, 7], [8, 9]])
    plain = forward(model.llm, rows.embeds, rows.lengths, rows.memory)[rows.target_positions]
    hidden, attention = forward_attention(model.llm, rows.embeds, rows.lengths, rows.memory)
    found = hidden[rows.target_positions]
    assert torch.allclose(project(model.llm, found), project(model.llm, plain), atol=1e-4, rtol=0)
    assert model.llm.config._attn_implementation == usual
    assert len(attention.text) == 2
    assert len(attention.speech) == (2 if memory else 0)
    for layer in range(2):
        text = attention.text[layer].sum(dim=-1)[1, :, : rows.lengths[1]]
        speech = attention.speech[layer].sum(dim=-1)[1, :, : rows.lengths[1]] if memory else torch.zeros(())
        if name.startswith("cross"):
            assert torch.allclose(speech, torch.ones(()), atol=1e-5)
            speech = torch.zeros(())
        assert torch.allclose(text + speech, torch.ones(()), atol=1e-5)
        if memory:  # the shorter recording has nothing behind its end
            assert float(attention.speech[layer][0, :, :, int(rows.speech_lengths[0]) :].abs().sum()) == 0.0
    again = forward(model.llm, rows.embeds, rows.lengths, rows.memory)[rows.target_positions]
    assert torch.equal(again, plain)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_what_is_written_and_columns_what_is_read(tmp_path, name):
    recognizer = recogniser(tmp_path, **MODELS[name])
    search = GreedySearch(min_labels=4)
    (best,) = recognizer.recognize([WAVEFORM], search)
    found = attention_weights(recognizer, WAVEFORM, layer=1, decoding=search)
    tokens = recognizer.loaded.units.tokenizer.convert_ids_to_tokens(list(best.labels))
    assert list(found.written) == [*tokens, "[end]"]
    assert list(found.read[-len(tokens) :]) == tokens
    start, stop = found.speech
    assert stop - start == best.speech_positions
    assert all(label == "" for label in found.read[start:stop])
    assert start == (0 if "prefix" not in name else len(recognizer.loaded.model.config.prompt_before))
    assert found.weights.shape == (4, len(found.written), len(found.read))
    for row in range(len(tokens) + 1):  # nothing to come is read
        assert np.all(found.weights[:, row, len(found.read) - len(tokens) + row :] == 0.0)
    other = attention_weights(recognizer, WAVEFORM, decoding=search)
    assert (found.layer, other.layer) == (1, 2)
    assert not np.allclose(found.weights, other.weights)


def test_posteriors_are_those_of_the_transcript(tmp_path):
    recognizer = recogniser(tmp_path)
    found = ctc_posteriors(recognizer, WAVEFORM, decoding="ctc_greedy")
    (best,) = recognizer.recognize([WAVEFORM], "ctc_greedy")
    log_probs, _ = recognizer.ctc_log_probs([WAVEFORM])
    assert np.allclose(found.posteriors, log_probs[0, :, best.labels].exp().T, atol=1e-6)
    assert np.allclose(found.blank, log_probs[0, :, -1].exp(), atol=1e-6)
    assert [tuple(span) for span in found.spans] == ctc_align(log_probs[0].numpy(), best.labels)
    assert found.seconds == 1.2


def test_pictures_and_numbers_are_written(tmp_path):
    recognizer = recogniser(tmp_path / "model")
    attention, ctc = (
        attention_weights(recognizer, WAVEFORM),
        ctc_posteriors(recognizer, WAVEFORM, decoding="ctc_greedy"),
    )
    draw_attention(attention, tmp_path / "new" / "all.png")
    draw_attention(attention, tmp_path / "third.png", head=3)
    draw_ctc(ctc, tmp_path / "ctc.png")
    for name in ("new/all.png", "third.png", "ctc.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "new/all.png").read_bytes() != (tmp_path / "third.png").read_bytes()
    with np.load(tmp_path / "third.npz") as numbers:
        assert np.array_equal(numbers["weights"], attention.weights)
        assert list(numbers["written"]) == list(attention.written)
        assert int(numbers["layer"]) == 2
    with np.load(tmp_path / "ctc.npz") as numbers:
        assert np.array_equal(numbers["posteriors"], ctc.posteriors)
        assert np.array_equal(numbers["spans"], ctc.spans)
    with pytest.raises(ConfigError, match="no head 5; choose 1 to 4"):
        draw_attention(attention, tmp_path / "fifth.png", head=5)


def test_labels_are_drawn_as_they_are(tmp_path):
    recognizer = recogniser(tmp_path / "model")
    found = attention_weights(recognizer, WAVEFORM)
    found.written[:2] = ["$a", "字"]
    draw_attention(found, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 1000


def test_what_cannot_be_drawn_is_an_error(tmp_path, monkeypatch):
    recognizer = recogniser(tmp_path / "model")
    with pytest.raises(ConfigError, match="no layer 3; choose 1 to 2"):
        attention_weights(recognizer, WAVEFORM, layer=3)
    with pytest.raises(AudioError, match="nothing is recognised"):
        attention_weights(recognizer, np.zeros(16000, np.float32))
    save_tiny(tmp_path / "acoustic", tiny_acoustic_model())
    with pytest.raises(ModelError, match="no attention"):
        attention_weights(load(tmp_path / "acoustic"), WAVEFORM)
    with pytest.raises(ModelError, match="no CTC head"):
        ctc_posteriors(recogniser(tmp_path / "no_ctc", ctc_layers=()), WAVEFORM)
    found = attention_weights(recognizer, WAVEFORM)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="matplotlib"):
        draw_attention(found, tmp_path / "picture.png")


def test_commands(tmp_path):
    import soundfile as sf

    save_tiny(tmp_path / "model")
    sf.write(tmp_path / "talk.wav", WAVEFORM, SAMPLE_RATE)
    talk, model = str(tmp_path / "talk.wav"), str(tmp_path / "model")
    for kind, options in (("attention", ["--layer", "1", "--head", "2"]), ("ctc", ["--decoding", "ctc_greedy"])):
        out = tmp_path / "pictures" / f"{kind}.png"
        result = CliRunner().invoke(app, ["picture", kind, talk, "--model", model, "-o", str(out), *options])
        assert (result.exit_code, result.stdout) == (0, f"{out}\n"), result.output
        assert out.is_file()
        assert out.with_suffix(".npz").is_file()
    for wrong in ([], ["-o", "out.jpg"]):
        result = CliRunner().invoke(app, ["picture", "ctc", talk, "--model", model, *wrong])
        assert result.exit_code == 2
        assert "no file for the picture" in result.stderr
    result = CliRunner().invoke(app, ["picture", "ctc", "missing.wav", "--model", model, "-o", str(tmp_path / "a.png")])
    assert result.exit_code == 2
    assert "missing.wav" in result.stderr
