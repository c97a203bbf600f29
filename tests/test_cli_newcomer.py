"""What someone meets in the first hour: packages that are missing, folders for files, what other packages say."""

import os
import subprocess
import sys
import warnings

import pytest

from kikitori import cli
from kikitori.cli.common import one_line_errors
from kikitori.data.manifest import read_manifest
from kikitori.errors import AudioError, DataError, KikitoriWarning
from kikitori.io.audio import read_audio
from kikitori.text.corpus import read_lines
from tests.commands import call, one_line
from tests.io.codecs.test_containers import MP3
from tests.train.helpers import make_recipe, speech_llm_recipe, write_corpus

FOLDERS = {
    "kaldi": (("wav.scp", "text", "utt2spk"), "is a folder of Kaldi's", "kikitori data convert"),
    "hf": (("dataset_info.json", "state.json"), "is a dataset of Hugging Face", "kikitori data convert"),
    "arrow": (("data-00000-of-00001.arrow",), "is a dataset of Hugging Face", "kikitori data convert"),
    "model": (("config.json", "model.safetensors"), "is a model folder", "name it with --model"),
    "sounds": (("a.WAV", "b.flac"), "is a folder with 2 recordings", r"such as .*sounds/\*\.WAV"),
    "manifests": (("train.jsonl",), "is a folder", r"such as .*manifests/train\.jsonl"),
    "empty": ((), "is a folder", "name a file in it"),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_where_a_file_is_due(name, tmp_path):
    files, found, remedy = FOLDERS[name]
    folder = tmp_path / name
    folder.mkdir()
    for file in files:
        (folder / file).write_bytes(b"")
    with pytest.raises(AudioError, match=f"no audio file: it {found}; .*{remedy}"):
        read_audio(folder)
    with pytest.raises(DataError, match=f"no manifest: it {found}; .*{remedy}"):
        read_manifest(folder)
    with pytest.raises(DataError, match=f"no text file: it {found}; .*{remedy}"):
        list(read_lines(folder))


@pytest.mark.parametrize(
    ("package", "extra", "arguments"),
    [
        ("matplotlib", "train", ("picture", "ctc", "a.wav", "-o", "a.png")),
        ("matplotlib", "train", ("picture", "attention", "a.wav", "-o", "a.png")),
        ("peft", "train", ("transcribe", "a.wav", "--adapter", "a")),
        ("peft", "train", ("evaluate", "--data", "MANIFEST", "--adapter", "a", "-o", "o")),
        ("pyopenjtalk", "synthesis", ("lexicon", "--text", "a.txt", "--source", "openjtalk", "-o", "a.tsv")),
        ("peft", "train", ("train", "RECIPE", "-o", "run")),
        ("peft", "train", ("train", "RECIPE", "--dry-run")),
    ],
)
def test_a_missing_package_is_named_with_its_extra_before_any_work(package, extra, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    manifest = write_corpus(tmp_path)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(_lora_recipe(tmp_path))
    given = {"MANIFEST": manifest, "RECIPE": recipe}
    result = call(*(given.get(each, each) for each in arguments))
    assert f"the package {package}, which is not installed; pip install 'kikitori[{extra}]'" in one_line(result)


def _lora_recipe(folder):
    import yaml

    recipe = speech_llm_recipe(llm={"policy": "lora"})
    make_recipe(folder, folder, recipe)  # it is sound
    return yaml.safe_dump({**recipe, "data_root": str(folder)})


@pytest.mark.parametrize("package", ["av", "peft", "matplotlib", "pyopenjtalk"])
def test_a_package_that_is_missed_later_is_named_too(package, capsys):
    with pytest.raises(Exception, match="2"), one_line_errors():
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)
    assert "pip install 'kikitori[" in capsys.readouterr().err


def test_what_other_packages_say_stays_off_the_screen_and_our_own_warnings_are_lines(monkeypatch, capsys):
    def app():
        with one_line_errors():
            warnings.warn("to each other", FutureWarning, stacklevel=1)
            warnings.warn("to the user", KikitoriWarning, stacklevel=1)

    monkeypatch.setattr(cli, "app", app)
    monkeypatch.setattr(sys, "warnoptions", [])
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")  # so that it is put back
    cli.main()
    assert capsys.readouterr().err == "kikitori: warning: to the user\n"


def test_gaps_in_a_recording_are_said_on_the_screen(tmp_path, capsys):
    middle = len(MP3) // 2
    (tmp_path / "a.mp3").write_bytes(MP3[:middle] + bytes(range(256)) + MP3[middle + 100 :])
    pytest.importorskip("av")
    with one_line_errors():
        read_audio(tmp_path / "a.mp3")
    assert "a.mp3: what lies at" in capsys.readouterr().err


def test_shells_get_completion():
    script = "from kikitori.cli import main; main()"
    shell = os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script, "--show-completion", "bash"], capture_output=True, text=True, env=shell
    )
    assert done.returncode == 0, done.stderr
    assert "_COMPLETE" in done.stdout
