"""Training from shards: every row once an epoch, wherever the run is stopped and however many processes go on."""

import json
import os
from collections import Counter

import pytest

from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.errors import DataError
from kikitori.train.build.task import build_task
from kikitori.train.run import train
from kikitori.train.tasks.speech import AcousticTask
from tests.data.layouts.sounds import tar
from tests.data.layouts.test_lhotse import cut, shar
from tests.train.helpers import (
    AUGMENT,
    Interruption,
    acoustic_recipe,
    assert_same,
    checkpoint_contents,
    interrupt,
    make_recipe,
    merged,
    write_corpus,
    write_recipe,
)
from tests.train.parallel.job import run_together


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The recordings of `write_corpus`: two in a tar, three in another, two in a Shar; and the manifest of all."""
    folder = tmp_path_factory.mktemp("shards")
    rows = [row for row in read_manifest(write_corpus(folder)).utterances if row.split == "train"]
    for number, part in enumerate((rows[:2], rows[2:5])):
        files = {}
        for row in part:
            name = row.audio_filepath.stem
            files |= {f"{name}.wav": row.audio_filepath.read_bytes(), f"{name}.txt": row.text.encode()}
        tar(folder / "tars" / f"{number}.tar", files)
    said = [cut("c")["supervisions"][0] | {"text": row.text} for row in rows[5:]]
    cuts = [
        cut(row.audio_filepath.stem, duration=row.duration, supervisions=[text])
        for row, text in zip(rows[5:], said, strict=True)
    ]
    files = [(f"{i}.{kind}", (folder / f"{i}.wav").read_bytes()) for i in (5, 6) for kind in ("wav", "json")]
    shar(folder / "shar", cuts, files)
    return folder


@pytest.fixture(autouse=True)
def cache(data, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(data / "cache"))


def recipe_of(**changes):
    train_data = [{"path": "tars"}, {"path": "shar"}]
    base = acoustic_recipe(data={"train": train_data, "shuffle_rows": 2}, augment=AUGMENT)
    return merged(base, {"run": {"checkpoint_every": 1, "keep_checkpoints": 99}, **changes})


def told_by(monkeypatch, seen):
    """Notes the place and the utterances of each batch whose loss is computed."""
    real = AcousticTask.loss

    def loss(self, batch, position):
        seen.append((position.epoch, position.batch, batch.utt_ids))
        return real(self, batch, position)

    monkeypatch.setattr(AcousticTask, "loss", loss)


def test_rows_of_shards_are_those_of_their_files(data, tmp_path):
    lines = []
    task = build_task(make_recipe(tmp_path, data, recipe_of()), lines.append)
    plain = build_task(make_recipe(tmp_path, data, recipe_of(data={"train": [{"path": "manifest.jsonl"}]})), print)
    assert task.units.tokenizer.get_vocab() == plain.units.tokenizer.get_vocab()
    expected = {row.audio_filepath.stem: row for row in plain.train.utterances}
    rows = [*task.train.utterances]
    assert [row.utt_id for row in rows] == [*"0123456"]
    for row in rows:
        assert (row.text, row.duration) == (expected[row.utt_id].text, pytest.approx(expected[row.utt_id].duration))
        assert (read_utterance(row) == read_utterance(expected[row.utt_id])).all()
    assert "train: 7 utterances, 0.00 h" in lines
    orders = [[rows[i].audio_filepath.name for batch in task.batches(epoch) for i in batch] for epoch in range(6)]
    assert len({tuple(dict.fromkeys(order)) for order in orders}) > 1  # of shards
    windows = [task.batches(epoch) for epoch in range(6)]
    assert all(sorted(i for batch in each for i in batch) == [*range(7)] for each in windows)


@pytest.mark.parametrize("stops", [(1,), (2, 3)])
def test_a_run_from_shards_resumes_exactly(data, tmp_path, stops):
    recipe = write_recipe(tmp_path / "recipe.yaml", data, recipe_of())
    seen, again = [], []
    with pytest.MonkeyPatch.context() as patch:
        told_by(patch, seen)
        train(recipe, tmp_path / "straight")
    for number, stop in enumerate(stops):
        with pytest.MonkeyPatch.context() as patch:
            told_by(patch, again)
            interrupt(patch, AcousticTask, stop)
            with pytest.raises(Interruption):
                train(recipe, tmp_path / "run", resume=number > 0)
    with pytest.MonkeyPatch.context() as patch:
        told_by(patch, again)
        train(recipe, tmp_path / "run", resume=True)
    assert again == seen
    for epoch in range(2):
        assert Counter(name for at, _, names in again if at == epoch for name in names) == Counter("0123456")
    assert_same(checkpoint_contents(tmp_path / "run"), checkpoint_contents(tmp_path / "straight"))


def job(recipe, folder, resume):
    """A process of a run that writes down what it has seen."""
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        told_by(patch, seen)
        train(recipe, folder, resume=resume)
    (folder / f"seen-{os.environ.get('RANK', '0')}-{resume}.json").write_text(json.dumps(seen))


@pytest.mark.slow
def test_another_number_of_processes_goes_on_with_the_other_rows(data, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # both want to make it
    recipe, run = write_recipe(tmp_path / "recipe.yaml", data, recipe_of()), tmp_path / "run"
    assert run_together(2, job, recipe, run, False) == [0, 0]
    first = [each for rank in range(2) for each in json.loads((run / f"seen-{rank}-False.json").read_text())]
    for late in sorted((run / "checkpoints").iterdir(), key=lambda path: int(path.name.rpartition("-")[2]))[1:]:
        for file in sorted(late.rglob("*"), reverse=True):
            file.unlink()
        late.rmdir()
    job(recipe, run, True)
    second = json.loads((run / "seen-0-True.json").read_text())
    begun = min((epoch, batch) for epoch, batch, _ in second)
    assert begun == (0, 2)
    whole = [each for each in first if (each[0], each[1]) < begun] + second
    for epoch in range(2):
        assert Counter(name for at, _, names in whole if at == epoch for name in names) == Counter("0123456")


def test_what_shards_lack_stops_the_run_or_is_told(data, tmp_path):
    tar(tmp_path / "s" / "0.tar", {"1.wav": (data / "1.wav").read_bytes(), "1.txt": b"a cat", "2.txt": b"lost"})
    recipe = recipe_of(data={"train": [{"path": str(tmp_path / "s")}], "dev": []})
    with pytest.raises(DataError, match=r"0\.tar: 2: no audio; mend the shards or set data\.on_error=skip"):
        build_task(make_recipe(tmp_path, data, recipe), print)
    recipe["data"]["on_error"] = "skip"
    lines = []
    build_task(make_recipe(tmp_path, data, recipe), lines.append)
    assert any("0.tar: 2: no audio; line left out" in line for line in lines)


def test_long_texts_make_batches_smaller(data, tmp_path):
    recipe = recipe_of(data={"batch_characters": 20, "max_batch_size": 9, "batch_seconds": 100.0, "num_buckets": 1})
    task = build_task(make_recipe(tmp_path, data, recipe), lambda _: None)
    texts = [row.text for row in task.train.utterances]
    batches = [*task.batches(0)]
    assert all(len(batch) * max(len(texts[i]) for i in batch) <= 20 for batch in batches)
    assert max(map(len, batches)) > 1
    for batch in batches:  # what a dry run calls the largest
        assert task.size(batch) == pytest.approx(5.0 * len(batch) * max(len(texts[i]) for i in batch))
    assert sorted(i for batch in batches for i in batch) == [*range(7)]
