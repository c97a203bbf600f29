"""CTC heads as a small folder that names the Whisper on whose encoder they stand."""

import json
from math import inf

import pytest
import torch
from safetensors.torch import load_file

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.loading import load
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.folder import load_model, save_model
from kikitori.model.heads import ctc_loss
from kikitori.model.published.convert import convert_heads
from kikitori.model.published.part import PARTS
from kikitori.recognizer import PLAIN
from kikitori.scorers.options import ScorerOptions, with_scales
from kikitori.search.options import BeamSearch, CTCGreedySearch, JointSearch, RescoringSearch
from kikitori.text.unit_training import character_units
from kikitori.types import TrainedOn
from tests.model.published.test_ctranslate2 import save as save_ctranslate2
from tests.tiny import save_tiny_llm, save_tiny_whisper, shake, tiny_bpe, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(4)
UNITS = character_units(["the quick brown fox jumps over a lazy dog"], "en_plain")


def heads_on(whisper, *, window="speech"):
    """CTC heads whose last encoder layer has moved away from Whisper's."""
    torch.manual_seed(1)
    encoder = SpeechEncoder.from_pretrained(whisper)
    shake(encoder.layers[-1], 3, 0.05)
    encoder.config.window = window
    config = AcousticModelConfig(encoder_config=encoder.config, ctc_layers=[2], num_units=UNITS.size)
    return AcousticModel(config, encoder=encoder).eval()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A base, a run of heads on it, and the part made of it."""
    root = tmp_path_factory.mktemp("parts")
    save_tiny_whisper(root / "whisper-tiny", tiny_whisper(multilingual=True))
    save_model(root / "run", heads_on(root / "whisper-tiny"), UNITS, TrainedOn(20.0, 2.0, "en"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARTS, str(root))
        convert_heads(root / "run", "someone/whisper-tiny", root / "part")
    return root


@pytest.fixture(autouse=True)
def _parts(folders, monkeypatch):
    monkeypatch.setenv(PARTS, str(folders))


def test_a_part_holds_what_training_changed_and_nothing_else(folders):
    names = {*load_file(folders / "part" / "model.safetensors")}
    assert {name.split(".")[0] for name in names} == {"ctc_heads", "encoder"}
    assert {".".join(name.split(".")[:4]) for name in names if name.startswith("encoder")} == {"encoder.model.layers.1"}
    sizes = [(folders / folder / "model.safetensors").stat().st_size for folder in ("part", "run")]
    assert sizes[0] < 0.4 * sizes[1]
    text = (folders / "part" / "config.json").read_text()
    assert json.loads(text)["base"]["name"] == "someone/whisper-tiny"
    assert str(folders) not in text  # where it was made says nothing elsewhere


def test_the_decoder_is_the_base_and_the_heads_are_the_run(folders):
    part, base, run = (load_model(folders / name) for name in ("part", "whisper-tiny", "run"))
    assert part.trained_on.language == "en"
    assert part.units.size == base.units.size
    assert part.ctc_units.size == UNITS.size == run.units.size
    assert base.ctc_units is base.units
    base.model.language = "en"
    with torch.inference_mode():
        padded = pad_waveforms(WAVEFORMS)
        encoded, plain = part.model.encode(*padded), base.model.encode(*padded)
        torch.testing.assert_close(encoded.window, plain.window, atol=1e-5, rtol=0)
        assert part.model.decoder(encoded).prompts.tolist() == base.model.decoder(plain).prompts.tolist()
        states = run.model.encoder.encode_upper(
            part.model.encoder.encode_lower(*part.model.encoder.features(*padded), 1),
            part.model.encoder.features(*padded)[1],
            1,
        )
        expected = run.model.log_probs(states)
        found = part.model.acoustic.log_probs(encoded)
        assert found[1].tolist() == expected[1].tolist() == run.model(*padded)[1].tolist()
        torch.testing.assert_close(found[0], expected[0], atol=2e-3, rtol=0)  # the part is in float16


def test_shared_layers_are_in_memory_once(folders):
    model = load_model(folders / "part").model
    ours, theirs = model.encoder.model, model.acoustic.encoder.model
    assert ours.layers[0] is theirs.layers[0]
    assert ours.conv1 is theirs.conv1
    assert ours.layers[1] is not theirs.layers[1]


@pytest.mark.parametrize("search", ["greedy", "beam", "joint", "ctc_greedy", "ctc_beam", "speculative", "sampling"])
def test_searches_give_the_same_in_any_batch(folders, search):
    recognizer = load(folders / "part", device="cpu", guards=PLAIN)
    together = recognizer.recognize(WAVEFORMS, search)
    alone = [recognizer.recognize([waveform], search)[0] for waveform in WAVEFORMS]
    assert [each.labels for each in together] == [each.labels for each in alone]
    if search in ("greedy", "beam", "speculative"):
        base = load(folders / "whisper-tiny", device="cpu", guards=PLAIN, language="en")
        assert [each.text for each in base.recognize(WAVEFORMS, "beam" if search == "beam" else "greedy")] == [
            each.text for each in together
        ]


@pytest.mark.parametrize("window", ["padded", "speech"])
def test_searches_without_the_decoder_compute_nothing_for_it(folders, window):
    recognizer = load(folders / "part", device="cpu", guards=PLAIN, window=window)
    whole = recognizer.encode(WAVEFORMS).encoded
    encoded = recognizer.encode(WAVEFORMS, needs=CTCGreedySearch.needs).encoded
    assert whole.window is not None
    assert encoded.window is None
    assert torch.equal(whole.frames, encoded.frames)
    assert all(torch.equal(*pair) for pair in zip(whole.intermediate, encoded.intermediate, strict=True))
    with torch.inference_mode():
        log_probs, _ = recognizer.loaded.model.acoustic.log_probs(whole)
    assert torch.equal(log_probs, recognizer.ctc_log_probs(WAVEFORMS)[0])


@pytest.mark.parametrize("first", [BeamSearch(beam=6, nbest=6), JointSearch(beam=6, nbest=6)])
def test_rescoring_what_the_decoder_wrote(folders, first):
    recognizer = load(folders / "part", device="cpu", guards=PLAIN)
    options = RescoringSearch(
        first=first, scorers={"ctc": ScorerOptions(scale=0.5), "length": ScorerOptions(scale=0.1)}
    )
    lists, found = (recognizer.try_recognize(WAVEFORMS, each) for each in (first, options))
    batch = recognizer.encode(WAVEFORMS)
    with torch.inference_mode():
        log_probs, lengths = batch.acoustic.log_probs(batch.encoded)
    for row, (before, nbest) in enumerate(zip(lists, found, strict=True)):
        shares = [sorted(each.scores["speech_llm"] for each in some) for some in (nbest, before)]
        assert shares[0] == pytest.approx(shares[1])
        expected_ctc = []
        for each in nbest:
            letters = batch.speller.letters(each.labels)
            loss = None if letters is None else ctc_loss(log_probs[row : row + 1], lengths[row : row + 1], [letters])
            expected_ctc.append(-inf if loss is None or loss.infeasible else -float(loss.total))
        if {*expected_ctc} == {-inf}:
            expected_ctc = [0.0] * len(nbest)
        for each, ctc in zip(nbest, expected_ctc, strict=True):
            assert each.scores["ctc"] == pytest.approx(ctc, rel=1e-4)
            expected = each.scores["speech_llm"] + 0.5 * ctc + 0.1 * each.scores["length"]
            assert each.score == pytest.approx(expected, rel=1e-4)
        scores = [each.score for each in nbest]
        assert scores == sorted(scores, reverse=True)
    assert any(len(nbest) > 1 for nbest in found)


def test_language_models_inside_the_search(folders):
    recognizer = load(folders / "part", device="cpu", guards=PLAIN)
    save_tiny_llm(folders / "lm", "llama", units=tiny_bpe())
    lm = str(folders / "lm")
    scales = {"ctc": 0.3, "speech_llm": 0.7, "lm": 0.5, "ilm": -0.2}
    inside = JointSearch(beam=3, nbest=3, max_labels=8, scorers=with_scales({"lm": ScorerOptions(path=lm)}, scales))
    behind = RescoringSearch(
        first=inside, scorers=with_scales({"text": ScorerOptions(path=lm)}, {"text": 0.0, "ilm": 0.0})
    )
    for nbest in recognizer.try_recognize(WAVEFORMS[:2], inside):
        for each in nbest:
            expected = sum(scale * each.scores[name] for name, scale in scales.items())
            assert each.score == pytest.approx(expected, abs=1e-4)
    for before, nbest in zip(
        *(recognizer.try_recognize(WAVEFORMS[:2], each) for each in (inside, behind)), strict=True
    ):
        assert {each.labels for each in nbest} == {each.labels for each in before}
        shares = {each.labels: each.scores for each in before}
        for each in nbest:
            if not each.labels:  # punctuation, once
                continue
            assert each.scores["text"] == pytest.approx(shares[each.labels]["lm"], abs=1e-3)
            assert each.scores["ilm"] == pytest.approx(shares[each.labels]["ilm"], abs=1e-3)


def test_frames_in_command_need_the_same_labels(folders):
    with pytest.raises(ModelError, match="the CTC head has other label units than the decoder; use joint"):
        load(folders / "part").recognize(WAVEFORMS[:1], "joint_time_sync")


def test_another_base_is_refused(folders, tmp_path, monkeypatch):
    whisper = tiny_whisper(multilingual=True)
    whisper.model.decoder.layers[0].fc1.bias.data += 0.5
    save_tiny_whisper(tmp_path / "whisper-tiny", whisper)
    monkeypatch.setenv(PARTS, str(tmp_path))
    with pytest.raises(
        ModelError, match=r"its base someone/whisper-tiny has other weights \(digest [0-9a-f]{12}, wanted"
    ):
        load_model(folders / "part")


@pytest.mark.parametrize("form", ["float16", "ctranslate2"])
def test_other_files_with_the_same_weights_are_the_same_base(folders, tmp_path, monkeypatch, form):
    if form == "float16":
        save_tiny_whisper(tmp_path / "whisper-tiny", tiny_whisper(multilingual=True).half())
    else:
        save_ctranslate2(tmp_path / "whisper-tiny")
    monkeypatch.setenv(PARTS, str(tmp_path))
    assert load_model(folders / "part").own_ctc_units is not None


def test_a_base_that_is_nowhere(folders, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv(PARTS)
    with pytest.raises(ModelError, match=r"someone/whisper-tiny.*config.json cannot be fetched"):
        load_model(folders / "part")


def test_another_language_is_refused(folders):
    with pytest.raises(ModelError, match="the model writes 'en', not 'ja'"):
        load_model(folders / "part", language="ja")


def test_heads_of_an_encoder_that_was_trained_below_are_refused(folders, tmp_path):
    model = heads_on(folders / "whisper-tiny")
    shake(model.encoder.model.conv1, 4, 0.1)
    save_model(tmp_path / "run", model, UNITS, TrainedOn(20.0, 2.0, "en"))
    with pytest.raises(ModelError, match=r"it holds encoder.model.conv1.(bias|weight), below the layers"):
        convert_heads(tmp_path / "run", "someone/whisper-tiny", tmp_path / "part")
    assert not (tmp_path / "part").exists()
