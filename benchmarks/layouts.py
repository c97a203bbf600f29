"""Data sets that Lhotse, `datasets` and `webdataset` write themselves, converted, beside what they read of them.

    pip install lhotse==1.33.0 urllib3 datasets==5.2.0 webdataset==1.0.2
    python benchmarks/layouts.py MANIFEST.jsonl [ROWS]

Rows of a manifest are written as cuts of a longer recording, as Shar (flac, wav, opus), by `save_to_disk` and
`to_parquet`, and as tars; `kikitori data convert` reads each. Every utterance has to come back with its text, its
speaker and, where nothing lossy lies between, the samples that the library itself gives. So has each row that training
reads out of tars, Shar and arrow files as they are.
"""

import io
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from kikitori.data.convert import convert
from kikitori.data.layouts.base import Columns
from kikitori.data.layouts.choose import choose_layout
from kikitori.data.layouts.index import index
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.types import Utterance

RATE = 16_000
Waveforms = dict[str, np.ndarray]


def converted(source: Path, layout: str, folder: Path) -> tuple[Utterance, ...]:
    left_out: list[str] = []
    name, _, reader = choose_layout(source, None)
    assert name == layout, f"{source} was taken for {name}"
    result = convert(
        reader.read(source, Columns(), left_out.append), folder / "manifest.jsonl", leave_out=left_out.append
    )
    assert not left_out, left_out
    return read_manifest(result.manifest).utterances


def in_place(source: Path) -> tuple[Utterance, ...]:
    """The utterances as training reads them, out of the shards."""
    manifest, left_out = index(source, lambda _: None)
    assert not left_out, left_out
    return read_manifest(manifest).utterances


def compare(
    name: str, rows: tuple[Utterance, ...], expected: list[Utterance], waveforms: Waveforms, slack: float
) -> None:
    said = {row.utt_id: (row.text, row.speaker) for row in expected}
    assert {row.utt_id: (row.text, row.speaker) for row in rows} == said, f"{name}: other texts"
    largest = 0.0
    for row in rows:
        found, known = read_utterance(row), waveforms[row.utt_id]
        assert len(found) == len(known), f"{name}: {row.utt_id} has {len(found)} samples, {len(known)} are expected"
        largest = max(largest, float(np.abs(found - known).max()))
    assert largest <= slack, f"{name}: samples differ by {largest:g}"
    print(f"{name}: {len(rows)} utterances, texts and speakers the same, samples within {largest:.1g}")


def lhotse_ways(rows: list[Utterance], waveforms: Waveforms, folder: Path) -> None:
    from lhotse import CutSet, Recording, RecordingSet, SupervisionSegment, SupervisionSet

    together = np.concatenate([waveforms[row.utt_id] for row in rows])
    sf.write(folder / "long.wav", together, RATE, subtype="FLOAT")
    segments, start = [], 0.0
    for row in rows:
        seconds = len(waveforms[row.utt_id]) / RATE
        segments.append(
            SupervisionSegment(row.utt_id, "long", start, seconds, text=row.text, speaker=row.speaker, language="en")
        )
        start += seconds
    recordings = RecordingSet.from_recordings([Recording.from_file(folder / "long.wav")])
    cuts = CutSet.from_manifests(recordings, SupervisionSet.from_segments(segments)).trim_to_supervisions(
        keep_overlapping=False
    )
    cuts = cuts.map(with_name_of_supervision)
    cuts.to_file(folder / "cuts.jsonl.gz")
    own = {cut.id: cut.load_audio()[0] for cut in CutSet.from_file(folder / "cuts.jsonl.gz")}
    compare("lhotse cuts", converted(folder / "cuts.jsonl.gz", "lhotse", folder / "cuts"), rows, own, 0.0)
    for kind in ("flac", "wav", "opus"):
        (folder / kind).mkdir()
        cuts.to_shar(folder / kind, fields={"recording": kind}, shard_size=3)
        if kind == "opus":  # another decoder than Lhotse's, and lossy: lengths and texts alone
            found = converted(folder / kind, "lhotse", folder / f"out-{kind}")
            assert {row.utt_id: row.text for row in found} == {row.utt_id: row.text for row in rows}
            print(f"lhotse shar, {kind}: {len(found)} utterances, texts the same")
            continue
        own = {cut.id: cut.load_audio()[0] for cut in CutSet.from_shar(in_dir=folder / kind)}
        compare(f"lhotse shar, {kind}", converted(folder / kind, "lhotse", folder / f"out-{kind}"), rows, own, 0.0)
        compare(f"lhotse shar, {kind}, in place", in_place(folder / kind), rows, own, 0.0)


def with_name_of_supervision(cut: Any) -> Any:
    return cut.with_id(cut.supervisions[0].id)


def encoded(waveform: np.ndarray) -> bytes:
    out = io.BytesIO()
    sf.write(out, waveform, RATE, format="WAV", subtype="FLOAT")
    return out.getvalue()


def tar_ways(rows: list[Utterance], waveforms: Waveforms, folder: Path) -> None:
    from webdataset import ShardWriter

    (folder / "tars").mkdir()
    with ShardWriter(f"{folder}/tars/%03d.tar", maxcount=3, verbose=0) as writer:
        for row in rows:
            key, known = Path(row.utt_id).with_suffix("").as_posix(), {"text": row.text, "speaker": row.speaker}
            writer.write({"__key__": key, "wav": encoded(waveforms[row.utt_id]), "json": known})
    found = converted(folder / "tars", "webdataset", folder / "out-tars")
    named = [replace(row, utt_id=Path(row.utt_id).with_suffix("").as_posix()) for row in rows]
    own = {new.utt_id: waveforms[old.utt_id] for new, old in zip(named, rows, strict=True)}
    compare("webdataset tars", found, named, own, 0.0)
    compare("webdataset tars, in place", in_place(folder / "tars"), named, own, 0.0)


def datasets_ways(rows: list[Utterance], waveforms: Waveforms, folder: Path) -> None:
    from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, Value

    columns = {
        "id": [row.utt_id for row in rows],
        "audio": [{"bytes": encoded(waveforms[row.utt_id]), "path": f"{row.utt_id}.wav"} for row in rows],
        "sentence": [row.text for row in rows],
        "speaker_id": [row.speaker for row in rows],
        "gender": [number % 2 for number in range(len(rows))],
    }
    kinds = Features(
        {
            "id": Value("string"),
            "audio": {"bytes": Value("binary"), "path": Value("string")},
            "sentence": Value("string"),
            "speaker_id": Value("string"),
            "gender": ClassLabel(names=["f", "m"]),
        }
    )
    data = Dataset.from_dict(columns, features=kinds).cast_column("audio", Audio(sampling_rate=RATE, decode=False))
    DatasetDict({"train": data}).save_to_disk(folder / "saved", num_shards={"train": 2})
    data.to_parquet(folder / "parquet" / "train-00000-of-00001.parquet")
    for name in ("saved", "parquet"):
        found = converted(folder / name, "hugging-face", folder / f"out-{name}")
        assert [row.extra["gender"] for row in found] == ["fm"[number % 2] for number in range(len(rows))]
        assert {row.split for row in found} == {"train"}
        compare(f"datasets, {name}", found, rows, waveforms, 0.0)
    compare("datasets, saved, in place", in_place(folder / "saved"), rows, waveforms, 0.0)


def main() -> None:
    manifest, count = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 8
    rows = [row for row in read_manifest(manifest).utterances if row.text][:count]
    waveforms = {row.utt_id: read_utterance(row) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        lhotse_ways(rows, waveforms, Path(folder))
        datasets_ways(rows, waveforms, Path(folder))
        tar_ways(rows, waveforms, Path(folder))


if __name__ == "__main__":
    main()
