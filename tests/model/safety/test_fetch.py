"""A download cache stands for the hub, which cannot be reached: at once, by our own words alone."""

import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from kikitori.errors import ModelError
from kikitori.loading import fetch_model, find_model, load, with_decoder
from kikitori.model.published.part import PARTS
from kikitori.model.safety.fetch import fetched
from kikitori.search.options import JointSearch
from tests.tiny import tiny_waveforms
from tests.two_decoders import WHISPER, save_two_decoders

WAVEFORMS = tiny_waveforms(2)
COMMIT = "0123456789" * 4
ID, BASE = "someone/two", f"someone/{WHISPER}"


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with two decoders, without their base."""
    root = tmp_path_factory.mktemp("hub")
    save_two_decoders(root / "two", root / "work")
    return root / "two"


def put(cache: Path, model_id: str, folder: Path) -> Path:
    """Puts a folder into a download cache."""
    repository = cache / f"models--{model_id.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return repository / "snapshots" / COMMIT


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty download cache; what else there is of a network has no hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv(PARTS, raising=False)
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits to try again"))
    return tmp_path / "hub"


def test_a_recogniser_of_the_hub_is_its_whole_folder(two, cache, capfd):
    snapshot = put(cache, BASE, two / WHISPER)
    own = put(cache, ID, two)
    shutil.rmtree(own / WHISPER)
    assert fetched(two) == two
    assert fetched("no_id") == "no_id"
    assert fetched(BASE) == snapshot
    assert (find_model(ID), fetch_model(ID)) == (ID, own)
    first = load(ID, device="cpu")
    second = load(ID, device="cpu", decoder="speech_llm")
    assert (first.name, first.folder) == (ID, own)
    assert (second.name, second.folder) == (f"{ID}/speech_llm", own / "speech_llm")
    assert second.decoding == JointSearch()  # of decoding.yaml
    assert with_decoder(first, "speech_llm").name == second.name
    for found, decoder in ((first, "encoder_decoder"), (second, "speech_llm")):
        here = load(two, device="cpu", decoder=decoder)
        for search in ("greedy", "ctc_greedy"):
            assert found.recognize(WAVEFORMS, search) == here.recognize(WAVEFORMS, search)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("cache")
def test_without_network_one_line_says_so_at_once(capfd):
    with pytest.raises(ModelError, match=r"^a/b: config.json cannot be fetched \(the hub cannot be reached, and the "):
        load("a/b")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("kind", "why"),
    [(GatedRepoError, "terms .*hf auth login"), (RepositoryNotFoundError, "there is none, or it is priv")],
)
@pytest.mark.usefixtures("cache")
def test_what_the_hub_refuses_is_said_in_words(monkeypatch, kind, why):
    def refuse(*_, **__):
        raise kind.__new__(kind)

    monkeypatch.setattr("huggingface_hub.snapshot_download", refuse)
    with pytest.raises(ModelError, match=why):
        fetched("a/b")


def test_a_model_without_safetensors_stays_an_id(two, cache):
    own = put(cache, BASE, two / WHISPER)
    (own / "model.safetensors").unlink()
    assert fetched(BASE) == BASE
