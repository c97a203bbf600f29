"""Hostile model folders, opened under watch in a child process; and the good ones that look a little like them."""

import json
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from kikitori.errors import ModelError
from kikitori.model.folder import load_model
from kikitori.model.safety.config import check_config
from kikitori.model.safety.weights import WeightSize, check_weights, no_larger_than
from tests.hostile import ATTACKS, good_folder, open_all
from tests.hostile.attack import Exploit, spoiled
from tests.hostile.watch import HANG_SECONDS, LOADERS

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the watch needs inotify and /proc")

LOADING = ("recogniser", "acoustic", "encoder", "llm", "units", "published")


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Of all attacks, by name."""
    return {outcome.name: outcome for outcome in open_all(ATTACKS, tmp_path_factory.mktemp("attacks"))}


def test_names_are_unique():
    assert len({one.name for one in ATTACKS}) == len(ATTACKS) >= 24


@pytest.mark.timeout(900)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_is_repelled(attack, outcomes):
    outcome = outcomes[attack.name]
    assert outcome.repelled, outcome
    assert outcome.seconds < HANG_SECONDS
    assert not attack.refused or "/" in outcome.message  # the folder


def test_without_an_attack_they_load(tmp_path):
    good = [spoiled(loader, lambda _: None, loader, refused=False) for loader in (*LOADING, "adapter")]
    for outcome in open_all(good, tmp_path):
        assert (outcome.error, outcome.opened) == ("", ()), outcome


def fall_for_everything(model):
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit(model)))
    (model.parent / "outside" / "secret").write_text("x")


def test_the_watch_sees_what_it_should(tmp_path):
    (outcome,) = open_all([spoiled("victim", fall_for_everything, "careless")], tmp_path)
    assert outcome.ran_code
    assert outcome.leaked
    assert outcome.opened == ("secret",)
    assert outcome.megabytes > 250
    assert (outcome.error, outcome.typed, outcome.repelled) == ("ValueError", False, False)


@pytest.mark.timeout(120)
def test_the_watch_survives_a_loader_that_kills_the_process(tmp_path):
    good = spoiled("good", lambda _: None, "units", refused=False)
    first, second = open_all([spoiled("abort", lambda _: None, "abort"), good], tmp_path)
    assert (first.error, first.repelled) == ("died", False)
    assert second.repelled


# What must go on working


def cached(folder, cache, *, shared=False):
    """The folder as the Hugging Face cache keeps it: links to blobs, which may be links to blobs of the whole cache."""
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / "0123abc"
    for directory in (snapshot, repository / "blobs", cache / "blobs" / "ab"):
        directory.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        if shared:
            store = cache / "blobs" / "ab" / f"{number:064x}"
            shutil.copy(file, store)
            blob.symlink_to(Path("../../blobs/ab") / store.name)
        else:
            shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    return snapshot


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("loader", LOADING)
def test_folders_of_the_hugging_face_cache_load(loader, shared, tmp_path):
    LOADERS[loader](cached(good_folder(loader), tmp_path, shared=shared))


def test_links_within_the_folder_and_to_the_folder_are_fine(tmp_path):
    folder = shutil.copytree(good_folder("recogniser"), tmp_path / "model")
    (folder / "weights").mkdir()
    (folder / "model.safetensors").rename(folder / "weights" / "1")
    (folder / "model.safetensors").symlink_to("weights/1")
    (tmp_path / "link").symlink_to(folder)
    load_model(tmp_path / "link")


def test_other_files_and_folders_are_left_alone(tmp_path):
    folder = shutil.copytree(good_folder("recogniser"), tmp_path / "model")
    (folder / "trainer_state.json").write_text("[" * 10_000_000)
    (folder / "checkpoint-1").mkdir()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    (folder / "model.fp32.safetensors").write_bytes(b"damaged, but nobody asked for it")
    load_model(folder)


FAMILIES = (
    "llama",
    "qwen2",
    "qwen3",
    "gpt_neox",
    "gpt2",
    "gpt_neo",
    "opt",
    "bloom",
    "phi3",
    "mistral",
    "gemma2",
    "gemma3",
)


@pytest.mark.parametrize("family", [*FAMILIES, "hubert", "wav2vec2", "wavlm", "whisper", "parakeet_encoder"])
def test_configurations_of_known_families_pass(family):
    values = AutoConfig.for_model(family).to_dict()
    check_config("here", json.loads(json.dumps(values, default=str)))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({"num_hidden_layers": 1_000, "rope_theta": 10**10, "max_position_embeddings": 10_485_760}, None),
        ({"num_hidden_layers": 1_001}, "a number above 1000 (num_hidden_layers: 1001)"),
        ({"a": [{"b": {"vocab_size": 2**24 + 1}}]}, None),  # transformers reads no configurations out of lists
        ({"a": {"b": {"vocab_size": -(2**24) - 1}}}, "vocab_size"),
        ({"conv_dim": [[512, 2**24 + 1]]}, "conv_dim"),
        ({"dtype": "bfloat16"}, None),
        ({"attn_implementation": {"": "sdpa"}}, None),
        ({"attn_implementation": {"llm_config": ["owner/kernel"]}}, "code from the hub"),
        ({"quantization_config": None, "transformers_weights": None}, None),
        ({"llm_config": {"model_type": "hubert"}}, "'hubert' is no language model"),
    ],
)
def test_entries_of_config_json(entries, expected):
    if expected is None:
        check_config("here", entries)
    else:
        with pytest.raises(ModelError, match="here: ") as caught:
            check_config("here", entries)
        assert expected in str(caught.value)


def build(layers, width):
    with torch.device("meta"):
        return torch.nn.ModuleList(torch.nn.Linear(width, width) for _ in range(layers))


def test_a_model_may_not_be_larger_than_its_weights():
    with no_larger_than(WeightSize(tensors=400, bytes=10**6), "here"):
        build(200, 10)
    for layers, width in ((10**9, 1), (1, 10**6)):
        with (
            pytest.raises(ModelError, match=r"here: config.json asks for a larger model"),
            no_larger_than(WeightSize(tensors=400, bytes=10**6), "here"),
        ):
            build(layers, width)
    build(2_000, 1)  # no longer watched
    with no_larger_than(None, "owner/name"):
        build(2_000, 1)


def test_the_size_of_weights(tmp_path):
    folder = shutil.copytree(good_folder("llm"), tmp_path / "model")
    size = check_weights(folder)
    assert size is not None
    assert size.tensors >= 20
    assert size.bytes == (folder / "model.safetensors").stat().st_size
    assert check_weights("owner/name") is None
