import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from kikitori import cli, loading
from kikitori.cli import transcribe
from kikitori.cli.common import INTERRUPTED, SOME_FAILED, WRONG_CALL
from kikitori.data.manifest import write_manifest
from kikitori.errors import ModelError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.files import LOCK
from kikitori.kernels import KERNEL_CACHES
from kikitori.scorers.prior import load_prior
from kikitori.text.lexicon import read_lexicon
from kikitori.text.ngram.model import load_ngram
from kikitori.text.units import vocabulary_fingerprint
from kikitori.workflows.sharing.journal import JOURNAL
from tests.commands import call, one_line
from tests.published import save_published
from tests.tiny import save_tiny, save_tiny_llm, tiny_acoustic_model, tiny_bpe, tiny_units, tiny_waveform

PACKAGE = Path(loading.__file__).parent
ROOT = Path(__file__).parents[1]
NOT_BUILT = ("study",)
KEEP = ("--on-runaway", "keep")  # a random LLM writes nothing that its CTC head hears
BASE = ("--model", "mini-en")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("model")
    save_tiny(directory)
    return directory


@pytest.fixture
def audio(tmp_path):
    def write(name: str, seconds: float = 1.0, seed: int = 0) -> Path:
        sf.write(tmp_path / name, tiny_waveform(seconds, seed), SAMPLE_RATE)
        return tmp_path / name

    return write


Audio = Callable[..., Path]


def test_kernel_caches_are_bounded_unless_the_environment_says_otherwise(monkeypatch):
    first, second = KERNEL_CACHES
    monkeypatch.setattr(cli, "app", lambda: None)
    monkeypatch.setenv(first, "7")
    monkeypatch.setenv(second, "")  # so that it is put back
    monkeypatch.delenv(second)
    cli.main()
    assert (os.environ[first], os.environ[second]) == ("7", "64")


def test_prints_path_tab_text(model, audio):
    files = [audio("a.wav"), audio("b.flac", seed=2), audio("a.wav")]
    result = call("transcribe", *files, "--model", model)
    assert result.exit_code == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [Path(row[0]) for row in rows] == files  # a file given twice is done twice
    loaded = loading.load(model)
    assert [row[1] for row in rows] == [loaded.transcribe(file).text for file in files]
    assert rows[0][1] != rows[1][1]


def test_bad_files_are_named_and_the_others_done(model, audio, tmp_path):
    good = audio("good.wav")
    (tmp_path / "empty.wav").write_bytes(b"")
    (tmp_path / "text.wav").write_text("this is not audio\n")
    (tmp_path / "cut.wav").write_bytes(good.read_bytes()[:8000])
    (tmp_path / "folder.wav").mkdir()
    sf.write(tmp_path / "nan.wav", np.full(8000, np.nan), SAMPLE_RATE, subtype="FLOAT")
    names = ["missing", "empty", "text", "cut", "folder", "nan"]
    bad = [tmp_path / f"{name}.wav" for name in names]
    result = call("transcribe", *bad[:3], good, *bad[3:], good, "--model", model, "--batch-size", "2")
    assert result.exit_code == SOME_FAILED
    assert [line.split("\t")[0] for line in result.stdout.splitlines()] == [str(good)] * 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith(f"kikitori: {good}: ")]
    for path, line in zip(bad, lines, strict=True):
        assert line.startswith(f"kikitori: {path}: ")


def test_all_files_bad(model, tmp_path):
    result = call("transcribe", tmp_path / "missing.wav", "--model", model)
    assert "no such file" in one_line(result, SOME_FAILED)


def test_doubtful_transcripts_are_flagged(model, audio):
    talk = audio("talk.wav")
    result = call("transcribe", talk, "--model", model, *KEEP, "decoding.max_labels=1")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{talk}\t")
    assert f"{talk}: length limit" in result.stderr


def test_a_long_recording_without_speech_says_so(model, tmp_path):
    sf.write(tmp_path / "silence.wav", np.zeros(5 * SAMPLE_RATE), SAMPLE_RATE)
    result = call("transcribe", tmp_path / "silence.wav", "--model", model)
    assert result.stdout == f"{tmp_path / 'silence.wav'}\t\n"
    assert "no speech (none is found anywhere in it); check this transcript" in result.stderr


def test_hotwords(model, audio, tmp_path):
    talk, names = audio("talk.wav"), tmp_path / "names.txt"
    names.write_text("we\nroute 66\n")
    search = ("--model", model, "--decoding", "ctc_beam", "decoding.scorers.hotwords.scale=9")
    result = call("transcribe", talk, *search, "--hotwords", names)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{talk}\t")
    assert result.stderr.count("warning: hotwords: 1 of 2 are left out ('route 66'): the CTC head cannot write 6") == 1
    names.write_text("66\n")
    assert "none of 1 can be used" in one_line(call("transcribe", talk, *search, "--hotwords", names))
    greedy = call("transcribe", talk, "--model", model, "--decoding", "greedy", "--hotwords", names)
    assert "'greedy' takes no hotwords; use ctc_beam" in one_line(greedy)
    assert "no such text file" in one_line(call("transcribe", talk, *search, "--hotwords", tmp_path / "missing"))


def test_one_format_of_one_file_is_printed(model, audio):
    talk = audio("talk.wav")
    search = ("--model", model, "--decoding", "ctc_greedy")
    printed = {fmt: call("transcribe", talk, *search, "-f", fmt).stdout for fmt in ("txt", "srt", "vtt", "tsv", "json")}
    text = printed["txt"].strip()
    assert printed["srt"].startswith("1\n00:00:0")
    assert printed["vtt"].startswith("WEBVTT\n\n00:00:0")
    assert printed["tsv"] == f"start\tend\ttext\n0\t1000\t{text}\n"
    (segment,) = json.loads(printed["json"])["segments"]
    assert "words" not in segment
    (segment,) = json.loads(call("transcribe", talk, *search, "-f", "json", "--word-times").stdout)["segments"]
    assert [word["word"] for word in segment["words"]] == text.split()
    assert 0.0 <= segment["words"][0]["start"] < segment["words"][-1]["end"] <= 1.0
    narrow = call("transcribe", talk, *search, "-f", "srt", "--max-line-width", "3", "--max-line-count", "1")
    assert max(map(len, narrow.stdout.splitlines())) == len("00:00:00,000 --> 00:00:00,000")
    assert "<u>" in call("transcribe", talk, *search, "-f", "vtt", "--highlight-words").stdout
    assert "-f prints one file" in one_line(call("transcribe", talk, talk, *search, "-f", "srt"))
    assert "several formats are several files" in one_line(call("transcribe", talk, *search, "-f", "all"))


def test_runaways_and_silence_are_explained(model, audio, tmp_path):
    talk, silence = audio("talk.wav"), tmp_path / "silence.wav"
    sf.write(silence, np.zeros(16000), SAMPLE_RATE)
    by_default, kept = (call("transcribe", talk, silence, "--model", model, *extra) for extra in ((), KEEP))
    by_ctc = call("transcribe", talk, "--model", model, "--decoding", "ctc_greedy")
    assert by_default.stdout == f"{by_ctc.stdout}{silence}\t\n" != kept.stdout
    assert f"{talk}: replaced (the text is the CTC head's); check this transcript" in by_default.stderr
    assert f"{talk}: ctc disagrees (agreement 0." in by_default.stderr
    assert "replaced" not in kept.stderr
    quiet = f"kikitori: {silence}: no speech (its spectrum varies less than that of speech); check this transcript\n"
    assert by_default.stderr.endswith(quiet)
    assert kept.stderr.endswith(quiet)
    found = call("transcribe", silence, "--model", model, *KEEP, "--on-no-speech", "keep")
    assert found.stdout != f"{silence}\t\n"
    assert found.stderr.endswith(quiet)
    assert call("transcribe", talk, silence, "--model", model, "-o", tmp_path / "out", "-f", "json").exit_code == 0
    first, second = (json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("talk", "silence"))
    assert first["flags"][-1] == "replaced"
    assert list(first["reasons"]) == [flag for flag in first["flags"] if flag in first["reasons"]]
    assert 0.0 <= first["ctc_agreement"] < 0.34
    assert len(first["nbest"]) == 2
    assert (second["text"], second["flags"], second["ctc_agreement"]) == ("", ["no_speech"], None)


@pytest.mark.parametrize(
    ("formats", "suffixes"),
    [
        ([], {".txt"}),
        (["-f", "json"], {".json"}),
        (["-f", "txt", "-f", "jsonl"], {".txt", ".jsonl"}),
        (["-f", "all"], {".txt", ".srt", ".vtt", ".tsv", ".json", ".jsonl"}),
    ],
)
def test_writes_files(model, audio, tmp_path, formats, suffixes):
    out = tmp_path / "new" / "out"
    result = call("transcribe", audio("talk.wav"), "--model", model, "-o", out, *formats)
    assert (result.exit_code, result.stdout) == (0, "")
    assert {path.name for path in out.iterdir()} == {LOCK, JOURNAL, *(f"talk{suffix}" for suffix in suffixes)}


def test_json_file_names_audio_and_language(model, audio, tmp_path):
    talk = audio("talk.wav")
    assert call("transcribe", talk, talk, "--model", model, "-o", tmp_path, "-f", "json").exit_code == 0
    first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("talk", "talk-2"))
    assert first == second
    assert (first["audio_filepath"], first["language"], first["duration"]) == (str(talk), "en", 1.0)


@pytest.mark.parametrize("command", ["transcribe", "evaluate"])
def test_folder_that_cannot_be_written(model, audio, command):
    talk = audio("talk.wav")
    folder = talk / "below"  # a file is no folder, not even for root
    if command == "transcribe":
        result = call(command, talk, "--model", model, "-o", folder)
    else:
        manifest = talk.with_name("manifest.jsonl")
        manifest.write_text(json.dumps({"audio_filepath": talk.name, "duration": 1.0, "text": "a"}))
        result = call(command, "--data", manifest, "--model", model, "-o", folder)
    assert f"{folder}: cannot be made" in one_line(result)


def test_a_transcript_that_cannot_be_written_costs_only_itself(model, audio, tmp_path):
    (tmp_path / "out" / "first.txt" / "in the way").mkdir(parents=True)
    files = audio("first.wav"), audio("second.wav")
    result = call("transcribe", *files, "--model", model, "--decoding", "ctc_greedy", "-o", tmp_path / "out")
    assert "first.txt: cannot be written" in one_line(result, SOME_FAILED)
    assert (tmp_path / "out" / "second.txt").is_file()


def test_overrides_and_files_that_look_like_them(model, audio, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    audio("talk.wav")
    audio("decoding.max_labels=1.wav")
    full, short = (
        call("transcribe", "talk.wav", "--model", model, *KEEP, *extra) for extra in ([], ["decoding.max_labels=1"])
    )
    assert len(short.stdout) < len(full.stdout)
    both = call("transcribe", "decoding.max_labels=1.wav", "--model", model, *KEEP)
    assert both.exit_code == 0
    assert both.stdout.split("\t")[1] == full.stdout.split("\t")[1]
    assert "known keys" in one_line(call("transcribe", "talk.wav", "--model", model, "decoding.beams=2"))
    assert "no such option" in one_line(call("transcribe", "talk.wav", "--model", model, "other.key=2"))
    assert "max_labels" in one_line(call("transcribe", "talk.wav", "--model", model, "decoding.max_labels=0"))
    assert "no audio file" in one_line(call("transcribe", "decoding.max_labels=1", "--model", model))


def test_decoding_by_name_and_by_file(model, audio, tmp_path):
    talk = audio("talk.wav")
    (tmp_path / "search.yaml").write_text("search: ctc_greedy\n")
    by_name = call("transcribe", talk, "--model", model, "--decoding", "ctc_greedy")
    by_file = call("transcribe", talk, "--model", model, "--decoding", tmp_path / "search.yaml")
    assert by_name.exit_code == by_file.exit_code == 0
    assert by_name.stdout == by_file.stdout != call("transcribe", talk, "--model", model, *KEEP).stdout


def test_model_folder_says_how_to_decode(audio, tmp_path):
    save_tiny(tmp_path / "model")
    (tmp_path / "model" / "decoding.yaml").write_text("search: ctc_greedy\n")
    talk = audio("talk.wav")
    by_folder = call("transcribe", talk, "--model", tmp_path / "model")
    by_name = call("transcribe", talk, "--model", tmp_path / "model", "--decoding", "ctc_greedy")
    assert by_folder.stdout == by_name.stdout
    assert by_folder.exit_code == 0


def test_the_name_of_the_folders_own_search_has_its_settings(audio, tmp_path):
    save_tiny(tmp_path / "model")
    (tmp_path / "model" / "decoding.yaml").write_text("search: greedy\nmax_labels: 2\n")
    (tmp_path / "search.yaml").write_text("search: greedy\n")
    start = ["transcribe", audio("talk.wav"), "--model", tmp_path / "model", *KEEP]
    own = call(*start)
    assert call(*start, "--decoding", "greedy").stdout == own.stdout != ""
    longer = call(*start, "--decoding", "greedy", "decoding.max_labels=3").stdout
    assert longer == call(*start, "decoding.max_labels=3").stdout != own.stdout
    file = call(*start, "--decoding", tmp_path / "search.yaml")
    other = call(*start, "--decoding", "speculative")  # with the defaults of its own
    assert file.stdout == other.stdout not in (own.stdout, longer)


def test_acoustic_model(audio, tmp_path):
    save_tiny(tmp_path / "model", tiny_acoustic_model())
    talk = audio("talk.wav")
    assert call("transcribe", talk, "--model", tmp_path / "model").exit_code == 0
    assert "no LLM" in one_line(call("transcribe", talk, "--model", tmp_path / "model", "--decoding", "greedy"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["transcribe"],
        ["transcribe", "a.wav", "--bogus"],
        ["transcribe", "a.wav", "--batch-size", "0"],
        ["transcribe", "a.wav", "--device", "tpu"],
        ["transcribe", "a.wav", "--dtype", "float16"],
        ["transcribe", "a.wav", "-o", "out", "-f", "docx"],
        ["train"],
        ["convert", "bogus"],
        ["data", "bogus"],
        ["convert", "nue-asr"],
        *([command] for command in NOT_BUILT),
    ],
)
def test_usage_errors_are_a_line_and_the_usage(arguments):
    result = call(*arguments)
    assert (result.exit_code, result.stdout) == (WRONG_CALL, "")
    lines = [line for line in result.stderr.splitlines() if line]
    assert lines[0].startswith("Usage: ")
    assert lines[-1].startswith("Error: ")
    assert len(lines) == 3  # the usage, where there is help, the error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["transcribe", "a.wav", "-f", "txt", "-f", "srt"], "-o"),
        (["transcribe", "a.wav", "--decoding", "viterbi"], "viterbi"),
        (["transcribe", "a.wav", "--decoding", "missing.yaml"], "missing.yaml: no such file"),
        (["transcribe", "a.wav", "--model", "./missing"], "./missing: no such model folder"),
        (["transcribe", "a.wav", "--model", "some/hub-id"], "some/hub-id: config.json cannot be fetched"),
        (["transcribe", "a.wav", "--decoding", "sampling", "decoding.top_p=2"], "decoding: top_p"),
        (["transcribe", "a.wav", "--decoding", "lexicon", "decoding.top_p=0.2"], "decoding: top_p"),
        (["convert", "nue-asr", "missing"], "-o: no folder"),
        (["convert", "nue-asr", "missing", "-o", "out"], "missing: no such model folder"),
        (["convert", "nue-asr", "rinna/nue-asr", "-o", "out"], "rinna/nue-asr: config.json cannot be fetched"),
        (["train", "missing.yaml", "-o", "run"], "missing.yaml"),
        (["train", "recipe.yaml", "word"], "word: not an override"),
        (["train", "recipe.yaml", "--gpu-memory", "80"], "--gpu-memory: nothing is estimated; add --dry-run"),
        (["train", "recipe.yaml"], "-o: no run folder"),
        (["adapt", "word", "-o", "run"], "word: not an override"),
        (["adapt", "--text", "a.txt"], "-o: no run folder"),
        (["adapt", *BASE, "-o", "run"], "give either --data or --text"),
        (["adapt", *BASE, "--data", "a.jsonl", "--text", "a.txt", "-o", "run"], "give either --data or --text"),
        (["adapt", *BASE, "--text", "a.txt", "-o", "run", "adapt.component=[llm]"], "did you mean 'components'?"),
        (["adapt", *BASE, "--text", "a.txt", "--dev", "missing.jsonl", "-o", "run"], "missing.jsonl: no such manifest"),
        (["ngram", "--text", "a.txt", "--split", "dev", "-o", "lm.arpa"], "--split: a split of what"),
        (["merge", "adapter"], "-o: no folder"),
        (["adapt", "--text", "a.txt", "-o", "run"], "--model: no recogniser to adapt"),
        (["merge", "adapter", "-o", "out"], "--model: no recogniser given"),
        (["merge", "adapter", *BASE, "-o", "out"], "adapter: no such adapter folder"),
        (["calibrate", "--data", "a.jsonl"], "-o: no file"),
        (["transcribe", "a.wav", "--adapter", "missing"], "missing: no such adapter folder"),
    ],
)
def test_wrong_calls(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in one_line(call(*arguments))
    assert list(tmp_path.iterdir()) == []


def _drop(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


def _no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def _other_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


@pytest.mark.parametrize("damage", [_drop, _cut, _no_json, _other_type, _no_tokenizer])
def test_damaged_model_folders(damage, audio, tmp_path):
    save_tiny(tmp_path / "model")
    damage(tmp_path / "model")
    assert str(tmp_path / "model") in one_line(call("transcribe", audio("a.wav"), "--model", tmp_path / "model"))


def test_bundled_model_missing(audio, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "BUNDLED", tmp_path / "tiny-en")
    assert "tiny-en" in one_line(call("transcribe", audio("a.wav")))


def test_published_model(audio, tmp_path):
    source, folder = save_published(tmp_path / "nue-asr"), tmp_path / "ours"
    talk = audio("talk.wav")
    done = call("convert", "nue-asr", source, "-o", folder)
    assert (done.exit_code, done.stdout, done.stderr) == (0, f"{folder}\n", "")
    direct, converted = (call("transcribe", talk, "--model", path) for path in (source, folder))
    assert direct.exit_code == converted.exit_code == 0
    assert direct.stdout == converted.stdout != ""
    assert "is there already" in one_line(call("convert", "nue-asr", source, "-o", folder))


def test_published_model_with_a_pickle_alone(audio, tmp_path):
    source = save_published(tmp_path / "nue-asr", pickled=True)
    message = one_line(call("transcribe", audio("talk.wav"), "--model", source))
    assert "is a pickle" in message
    command = message.rstrip().rpartition("run kikitori ")[2].replace("FOLDER", str(tmp_path / "ours"))
    done = call(*command.split())
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'ours'}\n")
    assert done.stderr.startswith("kikitori: pytorch_model.bin is a pickle")
    assert done.stderr.count("\n") == 1


def test_published_model_that_is_none(tmp_path):
    save_tiny(tmp_path / "model")
    message = one_line(call("convert", "nue-asr", tmp_path / "model", "-o", tmp_path / "ours"))
    assert "model type 'kikitori_speech_llm' is not 'nue_asr'" in message
    assert not (tmp_path / "ours").exists()


def test_sampling(model, audio):
    files = [audio("a.wav"), audio("b.wav", seed=2), audio("c.wav", 0.7, seed=3)]
    options = ["--model", model, *KEEP, "--decoding", "sampling", "decoding.temperature=3"]
    one, many = (call("transcribe", *files, *options, "--batch-size", size) for size in (1, 3))
    assert one.exit_code == 0
    assert one.stdout == many.stdout
    assert one.stdout != call("transcribe", *files, *options, "decoding.seed=1").stdout
    assert one.stdout != call("transcribe", *files, "--model", model, *KEEP).stdout


def test_prior_and_shallow_fusion(audio, tmp_path):
    model, manifest, prior = tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "out" / "prior.safetensors"
    save_tiny(model)
    save_tiny_llm(tmp_path / "lm")
    files = [audio(f"{seed}.wav", 1.0 + seed / 4, seed) for seed in range(3)]
    rows = [{"audio_filepath": f.name, "duration": 1.0, "text": "the quick fox", "split": "a"} for f in files]
    write_manifest(manifest, rows)
    for by in ("softmax", "counts"):
        result = call("prior", "--model", model, "--data", manifest, "--split", "a", "--by", by, "-o", prior)
        assert (result.exit_code, result.stdout) == (0, f"{prior}\n")
        log_probs = load_prior(prior, tiny_units().size)
        assert float(log_probs.exp().sum()) == pytest.approx(1.0)
    often, never = (tiny_units().encode(letter)[-1] for letter in "qz")
    assert log_probs[often] > log_probs[never]
    fusion = ["transcribe", *files, "--model", model, "--decoding", "shallow_fusion"]
    options = [
        f"decoding.scorers.lm.path={tmp_path / 'lm'}",
        f"decoding.scorers.prior.path={prior}",
        "decoding.prior_scale=0.2",
    ]
    result = call(*fusion, *options, "-o", tmp_path / "json", "-f", "json")
    assert result.exit_code == 0, result.output
    nbest = json.loads((tmp_path / "json" / "0.json").read_text())["nbest"]
    assert set(nbest[0]["scores"]) == {"ctc", "lm", "length", "prior"}
    assert "no lm/" in one_line(call(*fusion))
    assert "-o" in one_line(call("prior", "--data", manifest))
    assert "--data" in one_line(call("prior", "-o", prior))
    files[1].unlink()
    assert "1.wav" in one_line(call("prior", "--model", model, "--data", manifest, "-o", prior))


def test_priors_over_other_segmentations_and_units(tmp_path):
    model, manifest, prior = tmp_path / "model", tmp_path / "rows.jsonl", tmp_path / "p.safetensors"
    save_tiny(model)
    tiny_bpe().save(tmp_path / "lm")
    write_manifest(manifest, [{"audio_filepath": "none.wav", "duration": 1.0, "text": "The quick fox"}])
    units, size = ["--units", tmp_path / "lm"], tiny_bpe().size
    priors = []
    plain, sampled = ["counts"], ["sampled_counts"]
    for options in (plain, [*plain, "--text-form", "en_plain"], sampled, [*sampled, "--seed", 1]):
        result = call("prior", "--data", manifest, "-o", prior, *units, "--by", *options)
        assert (result.exit_code, result.stdout) == (0, f"{prior}\n")
        priors.append(load_prior(prior, size, vocabulary=vocabulary_fingerprint(tiny_bpe())))
    assert all(not some.equal(others) for some, others in pairwise(priors))
    with pytest.raises(ModelError, match="other labels"):
        load_prior(prior, size, vocabulary=vocabulary_fingerprint(tiny_units()))
    assert call("prior", "--data", manifest, "-o", prior, "--model", model, "--by", "sampled_counts").exit_code == 0
    assert "--by counts" in one_line(call("prior", "--data", manifest, "-o", prior, *units))


def test_a_lexicon_of_texts_and_transcripts(tmp_path):
    books, words, licence = tmp_path / "books.txt", tmp_path / "cmudict.dict", tmp_path / "LICENSE"
    books.write_text("Mr. Fox jumps\nFox, the fox!\n")
    words.write_text("mister M IH1 S T ER0\nfox F AA1 K S\nthe DH AH0\nthe(2) DH IY0\nworld W ER1 L D\n")
    licence.write_text("Copyright (C) the dictionary\n")
    manifest, file = tmp_path / "rows.jsonl", tmp_path / "out" / "en.tsv"
    rows = [{"audio_filepath": "none.wav", "duration": 1.0, "text": "Fox's WORLD"}, {"duration": 1.0, "split": "dev"}]
    write_manifest(manifest, [{**row, "audio_filepath": "none.wav"} for row in rows])
    text, sources = ["--text", books, "--text-form", "en_plain"], ["--source", words, "--source", "english"]
    options = [*text, "--spoken-titles", "--data", manifest, *sources, "--notice", licence]
    result = call("lexicon", *options, "-o", file)
    assert (result.exit_code, result.stdout) == (0, f"{file}\n")
    assert "4 words by cmudict.dict" in result.stderr
    assert "1 word by english" in result.stderr
    assert "1 word by none: jumps" in result.stderr
    assert "5 words, 15 phones" in result.stderr
    assert "# Copyright (C) the dictionary\n" in file.read_text()
    says = read_lexicon(file).pronunciations
    assert says["the"] == (("dh", "ah"), ("dh", "iy"))
    assert says["fox's"] == (("f", "aa", "k", "s", "ih", "z"),)
    assert call("lexicon", *text, *sources, "--min-count", 2, "--stress", "-o", file).exit_code == 0
    assert read_lexicon(file).pronunciations == {"fox": (("f", "aa1", "k", "s"),)}
    assert "--text" in one_line(call("lexicon", *sources, "-o", file))
    assert "--source" in one_line(call("lexicon", *text, "-o", file))
    assert "-o" in one_line(call("lexicon", *text, *sources, "-o", tmp_path))


def test_an_n_gram_from_text_to_fusion(audio, tmp_path):
    model, books, arpa = tmp_path / "model", tmp_path / "books.txt", tmp_path / "out" / "lm.arpa"
    save_tiny(model)
    books.write_text("Mr. Fox jumps\nthe dog\n\n")
    manifest = tmp_path / "rows.jsonl"
    write_manifest(manifest, [{"audio_filepath": "none.wav", "duration": 1.0, "text": "a small world"}])
    more = ["--data", manifest, "--spoken-titles", "--order", 3, "--model", model, "-o", arpa]
    result = call("ngram", "--text", books, *more)
    assert (result.exit_code, result.stdout) == (0, f"{arpa}\n")
    written = arpa.read_text()
    assert "\\3-grams:" in written
    assert all(gram in written for gram in ("i s t", "<s> ▁ a", "d o g"))
    assert "--text" in one_line(call("ngram", "-o", arpa))
    assert "-o" in one_line(call("ngram", "--text", books))
    assert "no such text file" in one_line(call("ngram", "--text", tmp_path / "none.txt", "-o", arpa))
    fusion = ["transcribe", audio("a.wav"), "--model", model, "--decoding", "shallow_fusion", f"decoding.lm={arpa}"]
    result = call(*fusion, f"decoding.ngram={arpa}", "decoding.ngram_scale=0.2", "-o", tmp_path / "json", "-f", "json")
    assert result.exit_code == 0, result.output
    (best, *_) = json.loads((tmp_path / "json" / "a.json").read_text())["nbest"]
    assert set(best["scores"]) == {"ctc", "lm", "ngram", "length"}
    assert best["scores"]["lm"] == best["scores"]["ngram"] < 0


def test_a_word_n_gram_from_text_to_a_file(tmp_path):
    books, manifest, file = tmp_path / "books.txt", tmp_path / "rows.jsonl", tmp_path / "out" / "words.ngram"
    books.write_text("Mr. Fox jumps\nthe dog\n\n")
    write_manifest(manifest, [{"audio_filepath": "none.wav", "duration": 1.0, "text": "a small world"}])
    more = ["--text", books, "--data", manifest, "--spoken-titles", "--text-form", "en_plain", "--order", 3]
    result = call("ngram", "--words", *more, "--min-count", 1, "-o", file)
    assert (result.exit_code, result.stdout) == (0, f"{file}\n")
    seen = {"a", "small", "world", "mister", "fox", "jumps", "the", "dog"}
    assert {*load_ngram(file).words} == {"<unk>", "</s>", "<s>", *seen}
    lexicon = tmp_path / "lexicon.tsv"
    lexicon.write_text("dog\tD AO G\nmister\tM IH S T ER\n")
    assert call("ngram", "--words", *more, "--lexicon", lexicon, "-o", file.with_suffix(".arpa")).exit_code == 0
    assert load_ngram(file.with_suffix(".arpa")).words == ("<unk>", "dog", "mister", "</s>", "<s>")
    assert "words.arpa" in one_line(call("ngram", "--words", *more, "-o", tmp_path / "lm.bin"))
    assert "add --words" in one_line(call("ngram", *more, "-o", tmp_path / "lm.arpa"))
    assert "--model" in one_line(call("ngram", "--words", *more, "--model", "x", "-o", file))
    assert "-o" in one_line(call("ngram", "--text", books, "-o", file))


def test_unexpected_os_error_is_one_line(audio, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(transcribe, "load_recognizer", fail)
    assert one_line(call("transcribe", audio("a.wav"))) == "kikitori: /somewhere: No space left on device\n"


def test_interrupt_is_one_line(audio, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(transcribe, "load_recognizer", interrupt)
    assert one_line(call("transcribe", audio("a.wav")), INTERRUPTED) == "kikitori: interrupted\n"


def test_bugs_are_one_line(audio, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr(transcribe, "load_recognizer", fail)
    monkeypatch.setattr(sys, "argv", ["kikitori", "transcribe", str(audio("a.wav"))])
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == SOME_FAILED
    output = capsys.readouterr()
    assert output.out == ""
    assert "unexpected ZeroDivisionError at test_cli.py:" in output.err
    assert output.err.count("\n") == 1


def test_version_and_help():
    assert call("--version").stdout.startswith("kikitori ")
    help_text = call("--help").stdout
    commands = (
        "transcribe",
        "evaluate",
        "diagnose",
        "rescore",
        "perplexity",
        "train",
        "adapt",
        "merge",
        "calibrate",
        "prior",
        "ngram",
        "lexicon",
        "convert",
    )
    assert all(command in help_text for command in commands)
    for command in (*([name] for name in commands), ["convert", "nue-asr"], ["data", "pseudo-label"]):
        assert call(*command, "--help").exit_code == 0


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from kikitori.cli import app; app(['--help'], standalone_mode=False);"
        "print({'torch', 'transformers', 'pydantic', 'numpy', 'omegaconf'} & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "set()\n"


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "kikitori", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("kikitori ")


@pytest.mark.skipif(sys.platform == "win32", reason="file names are text there")
def test_output_is_utf8_and_file_names_that_are_not_come_out_as_they_came_in(
    model, audio, tmp_path, monkeypatch, capsys
):
    name = os.fsencode(tmp_path) + b"/caf\xe9.wav"  # latin-1, which is not UTF-8
    Path(os.fsdecode(name)).write_bytes(audio("talk.wav").read_bytes())
    missing = tmp_path / "missing.wav"
    options = ["--model", str(model), "--decoding", "ctc_greedy"]
    monkeypatch.setattr(sys, "argv", ["kikitori", "transcribe", os.fsdecode(name), str(missing), *options])
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    with pytest.raises(SystemExit) as exit_:
        cli.main()
    assert exit_.value.code == SOME_FAILED
    assert written.getvalue().startswith(name + b"\t")
    assert written.getvalue().count(b"\n") == 1
    assert capsys.readouterr().err == f"kikitori: {missing}: no such file; check the path\n"


def test_a_reader_that_has_seen_enough(model, audio, monkeypatch, capsys):
    reader, writer = os.pipe()
    os.close(reader)
    options = ["--model", str(model), "--decoding", "ctc_greedy", "--batch-size", "1"]
    monkeypatch.setattr(sys, "argv", ["kikitori", "transcribe", *[str(audio("talk.wav"))] * 4, *options])
    with contextlib.suppress(BrokenPipeError), os.fdopen(writer, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        assert exit_.value.code == SOME_FAILED
    assert capsys.readouterr().err == ""


def test_package_carries_samples():
    rows = [json.loads(line) for line in (PACKAGE / "samples" / "manifest.jsonl").read_text().splitlines()]
    assert 6 <= len(rows) <= 10
    for row in rows:
        assert row["split"] == "test"
        info = sf.info(PACKAGE / "samples" / row["audio_filepath"])
        assert info.frames / info.samplerate == pytest.approx(row["duration"], abs=0.02)
    attribution = (PACKAGE / "samples" / "ATTRIBUTION.md").read_text()
    assert "CC BY" in attribution or "Creative Commons Attribution" in attribution


@pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="needs a checkout")
def test_wheel_leaves_nothing_out():
    import tomllib

    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"] == {"wheel": {"packages": ["src/kikitori"]}}  # no exclude
    # hatchling also leaves out what git ignores
    ignored = (ROOT / ".gitignore").read_text().split()
    assert not {
        pattern
        for pattern in ignored
        if pattern.strip("/*.") in ("models", "samples", "safetensors", "opus", "templates", "j2")
    }
