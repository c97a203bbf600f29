"""The recipes and recordings are those of the training tests: both have to leave out the same rows."""

import json

import pytest

from kikitori.data.manifest import write_manifest
from kikitori.errors import ConfigError, DataError
from kikitori.io.progress import no_bar
from kikitori.train.build.corpora import check_speech
from kikitori.train.build.task import build_task
from kikitori.workflows.data.check import BROKEN, OVERLAP, TOO_LONG_FOR_CTC, UNREADABLE, check_manifests, check_recipe
from kikitori.workflows.data.tables import check_values, format_check
from tests.data.layouts.sounds import sound, tar
from tests.train.helpers import TEXTS, acoustic_recipe, make_recipe, masked_recipe, text_recipe, write_corpus

ROW = {"audio_filepath": "1.wav", "duration": 0.9, "text": "a cat", "split": "train"}
ROWS = [
    {**ROW, "id": "silent", "text": None},
    {**ROW, "id": "empty", "text": ""},
    {**ROW, "id": "symbols", "text": "!!!"},
    {**ROW, "id": "short", "duration": 0.05},
    {**ROW, "id": "long", "duration": 99.0},
    {**ROW, "id": "gone", "audio_filepath": "gone.wav"},
    {**ROW, "id": "noise", "audio_filepath": "noise.wav"},
    {**ROW, "id": "cut", "duration": 20.0},
    {**ROW, "id": "wordy", "text": "a cat " * 30},
    {**ROW, "id": "apart", "text": "the seven small birds saw two dogs"},
    {**ROW, "id": "kept", "text": "Seven small birds saw two dogs!", "split": "test"},
    {**ROW, "duration": "long", "id": "broken"},
]


@pytest.fixture
def folder(tmp_path):
    write_corpus(tmp_path, ROWS)
    (tmp_path / "noise.wav").write_bytes(b"RIFF no audio")
    return tmp_path


def recipe(folder, **changes):
    part = {"path": "manifest.jsonl", "split": "train", "repeat": 2, "exclude_overlap_with": ["test"]}
    return make_recipe(folder, folder, acoustic_recipe(data={"train": [part], "on_error": "skip"}, **changes))


def reasons(found):
    return {(each.utt_id, each.reason) for each in found.left_out}


def test_what_training_leaves_out_is_named(folder):
    found = check_recipe(recipe(folder))
    assert reasons(found) == {
        ("silent", "no text"),
        ("empty", "no text"),
        ("symbols", "no text"),
        ("short", "shorter than 0.1 s"),
        ("long", "longer than 30 s"),
        ("gone", "audio file missing"),
        ("noise", UNREADABLE),
        ("cut", UNREADABLE),
        ("wordy", TOO_LONG_FOR_CTC),
        ("", OVERLAP),
        ("", BROKEN),
    }
    details = [each.detail for each in found.left_out if not each.utt_id]
    assert details[0].endswith("'duration' must be a number of seconds, not 'long'")
    assert "apart shares six words with a transcript of test" in details[1]
    assert {each.set for each in found.left_out} == {"manifest.jsonl:train"}
    assert not found.stops


def test_training_itself_leaves_out_the_same(folder):
    found, task = check_recipe(recipe(folder)), build_task(recipe(folder), lambda _: None)
    told = check_speech(task.train, no_bar)
    by_check = {each.utt_id for each in found.left_out if each.reason not in (UNREADABLE, TOO_LONG_FOR_CTC)}
    in_training = {each.utt_id for each in task.train.utterances}
    assert in_training == {*(f"{i}.wav" for i in range(len(TEXTS))), "noise", "cut", "wordy"}
    assert not in_training & by_check
    assert {each.detail for each in found.left_out if each.reason == UNREADABLE} == {
        line.removeprefix("warning: ").removesuffix("; left out") for line in told
    }
    assert {each.utt_id for each in found.left_out if each.reason == TOO_LONG_FOR_CTC} == {
        row.utt_id for row in task.train.utterances.take(task.label_rates.misfits)
    }


def test_dev_rows_and_test_sets_beside(folder):
    write_manifest(folder / "other.jsonl", [{**ROW, "id": "new", "text": "a dög", "speaker": "x"}])
    found = check_recipe(recipe(folder), [str(folder / "other.jsonl"), f"{folder}/manifest.jsonl:test"])
    names = [each.name for each in found.sets]
    assert names == [
        *("manifest.jsonl:train", "manifest.jsonl:dev"),
        *(f"{folder.name}/other.jsonl:train", f"{folder.name}/manifest.jsonl:test"),
    ]
    assert [each.trained for each in found.sets] == [True, False, False, False]
    assert found.shared["manifest.jsonl:train", "manifest.jsonl:dev"].audio[:2] == ("0.wav", "1.wav")
    with pytest.raises(DataError, match="no such manifest"):
        check_recipe(recipe(folder), ["no.jsonl"])


def test_characters_that_the_units_lack(folder):
    lower = {"kind": "characters", "text_form": "lower"}
    write_manifest(folder / "other.jsonl", [{**ROW, "id": "new", "text": "A DÖG q q", "split": "test"}])
    found = check_recipe(recipe(folder, units=lower), [str(folder / "other.jsonl")])
    assert dict(found.sets[-1].unknown) == {"ö": 1, "q": 2}
    assert "2 characters that the label units lack: q (2), ö (1)" in format_check(found)


def test_a_recipe_that_needs_no_text_leaves_none_out(folder):
    values = masked_recipe(data={"train": [{"path": "manifest.jsonl", "split": "train"}], "on_error": "stop"})
    found = check_recipe(make_recipe(folder, folder, values))
    assert {name for name, _ in reasons(found)} == {"short", "long", "gone", "noise", "cut", ""}
    assert found.stops
    assert "Training stops at broken lines and at files that cannot be read" in format_check(found)


def test_a_recipe_without_speech_is_refused(folder):
    values = text_recipe(text={"transcripts": [{"path": "manifest.jsonl", "split": "dev"}]})
    with pytest.raises(ConfigError, match=r"--recipe: it trains on text alone; name a recipe with data\.train"):
        check_recipe(make_recipe(folder, folder, values))


def test_manifests_alone_by_the_limits_of_any_recipe(folder):
    found = check_manifests([str(folder / "manifest.jsonl")])
    assert {each.name.partition(":")[2]: each.trained for each in found.sets} == {
        "train": True,
        "dev": False,
        "test": False,
    }
    assert {(name, reason) for name, reason in reasons(found) if name} == {
        ("silent", "no text"),
        ("empty", "no text"),
        ("short", "shorter than 0.1 s"),
        ("long", "longer than 30 s"),
        ("gone", "audio file missing"),
        ("noise", UNREADABLE),
        ("cut", UNREADABLE),
    }
    (train, test) = (f"{folder.name}/manifest.jsonl:{split}" for split in ("train", "test"))
    assert found.shared[train, test].texts == ("apart",)
    assert "kept" not in found.shared[train, test].audio


@pytest.mark.parametrize(
    ("name", "split", "trained"),
    [
        ("m.jsonl", "validation", False),
        ("m.jsonl", "validated", True),
        ("m.jsonl", "dev-clean", False),
        ("m.jsonl", "eval1", False),
        ("m.jsonl", "medevac", True),
        ("test_other.jsonl", None, False),
        ("latest.jsonl", None, True),
        ("test.jsonl", "train", True),
    ],
)
def test_which_sets_are_kept_for_measuring(tmp_path, name, split, trained):
    write_manifest(tmp_path / name, [{**ROW, "split": split}])
    (found,) = check_manifests([str(tmp_path / name)]).sets
    assert found.trained == trained


def test_names_that_would_be_the_same_are_whole(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place / "data").mkdir(parents=True)
        write_manifest(tmp_path / place / "data" / "m.jsonl", [ROW])
    sources = [str(tmp_path / place / "data" / "m.jsonl") for place in ("a", "b")]
    assert [each.name for each in check_manifests(sources).sets] == [f"{source}:train" for source in sources]


def test_report_and_values(folder):
    found = check_manifests([str(folder / "manifest.jsonl")])
    report = format_check(found)
    titles = ("Sets", "Unusual", "Shared with sets kept for measuring", "Left out of training")
    assert [line for line in report.splitlines() if line.startswith("#")] == [f"## {title}" for title in titles]
    assert f"- {folder.name}/manifest.jsonl:train: gone: audio file missing\n" in report
    values = json.loads(json.dumps(check_values(found)))
    assert values["sets"][f"{folder.name}/manifest.jsonl:train"]["utterances"] == len(TEXTS) + 10
    assert {
        "set": f"{folder.name}/manifest.jsonl:train",
        "id": "gone",
        "reason": "audio file missing",
        "detail": "",
    } in (values["left_out"])
    clean = write_corpus(folder / "clean")
    assert format_check(check_manifests([f"{clean}:train"])).endswith("## Left out of training\nNothing.")


def test_durations_are_held_against_the_audio(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    files = {}
    for name, duration in (("right", 1.0), ("less", 0.4), ("more", 1.6)):
        files |= {
            f"{name}.flac": sound(1.0),
            f"{name}.json": json.dumps({"text": "a cat", "duration": duration}).encode(),
        }
    tar(tmp_path / "set" / "s-0.tar", files)
    data = {"train": [{"path": str(tmp_path / "set")}], "dev": [], "on_error": "skip"}
    found = check_recipe(make_recipe(tmp_path, tmp_path, acoustic_recipe(data=data)))
    assert reasons(found) == {("more", UNREADABLE)}
    assert found.left_out[0].detail.endswith(
        "holds 1.00 s, and the manifest says 1.6 s of 'more'; correct the duration or copy the file again"
    )
    assert found.sets[0].cut == ["less: 0.4 s of 1.00 s"]
    assert (
        f"- {tmp_path / 'set'}: 1 file longer than their only row, read that far: less: 0.4 s of 1.00 s"
        in format_check(found)
    )
    assert check_values(found)["sets"][str(tmp_path / "set")]["longer_files"] == ["less: 0.4 s of 1.00 s"]
