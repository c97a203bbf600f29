"""From a recipe to data: filtered utterances, transcripts and sentences as labels."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain, compress
from pathlib import Path

from kikitori.data.manifest import Manifest, OnError, is_recognized, read_manifest
from kikitori.data.overlap import read_held_out
from kikitori.data.speech import SpeechLoader, WaveformAugment, filter_utterances
from kikitori.errors import DataError
from kikitori.text.corpus import read_lines, speak_titles
from kikitori.text.units import TokenizerUnits
from kikitori.train.recipe.recipe import Recipe
from kikitori.train.recipe.settings import ManifestRef, TextData
from kikitori.types import Utterance

Log = Callable[[str], None]


def speech(recipe: Recipe, units: TokenizerUnits | None, log: Log) -> tuple[SpeechLoader, SpeechLoader | None]:
    """Speech to train on, augmented, and dev speech; what is left out is logged.

    Args:
        recipe: The run's recipe.
        units: Label units of the transcripts; None where the speech needs none.
        log: Takes lines for the log.

    Raises:
        DataError: A manifest or a file is missing, or nothing is left.
    """
    data = recipe.data
    assert data is not None  # noqa: S101  (validated by Recipe)
    kept = training_rows(recipe, "train", data.train, units, log)
    train = SpeechLoader(
        kept, waveform_augment(recipe), seed=recipe.seed, cache=data.cache_audio, on_error=data.on_error
    )
    if not data.dev:
        return train, None
    held_out = _dev_rows(recipe, log, transcribed=units is not None)
    if data.max_dev_utterances and len(held_out) > data.max_dev_utterances:
        step = len(held_out) / data.max_dev_utterances
        held_out = [held_out[int(i * step)] for i in range(data.max_dev_utterances)]
    log(f"dev: {len(held_out)} utterances, {sum(u.duration for u in held_out) / 3600:.2f} h")
    return train, SpeechLoader(held_out, cache=data.cache_audio, on_error=data.on_error)


def training_rows(
    recipe: Recipe, what: str, refs: Sequence[ManifestRef], units: TokenizerUnits | None, log: Log
) -> list[Utterance]:
    """Rows that can be trained on, by `units` if any; `what` they are for, and what is left out, is logged."""
    data = recipe.data
    assert data is not None  # noqa: S101  (validated by Recipe)
    utterances = _rows(recipe, refs, log)
    kept, report = filter_utterances(
        utterances,
        min_seconds=data.min_seconds,
        max_seconds=data.max_seconds,
        has_labels=None if units is None else lambda text: bool(units.encode(text)),
    )
    for line in report.lines():
        log(f"{what}: {line}")
    if data.on_error == "stop":
        _refuse_missing(utterances)
    if not kept:
        raise DataError("no utterance is left to train on", remedy="see the lines above")
    return kept


def sentences(recipe: Recipe, units: TokenizerUnits, log: Log) -> tuple[list[list[int]], list[list[int]]]:
    """Training and held-out sentences as labels."""
    text = recipe.text
    assert text is not None  # noqa: S101  (validated by Recipe)
    lines = list(text_lines(Path(recipe.data_root), text))
    count = min(text.dev_lines, len(lines) // 2)
    held_out = {int(i * len(lines) / count) for i in range(count)}
    sentences = [units.encode(line)[: text.max_labels] for line in lines]
    train = [labels for i, labels in enumerate(sentences) if labels and i not in held_out]
    dev = [labels for i, labels in enumerate(sentences) if labels and i in held_out]
    log(f"train: {len(train)} sentences, {sum(map(len, train)) / 1e6:.2f} M labels; dev: {len(dev)} sentences")
    return train, dev


def corpus(recipe: Recipe) -> Iterator[str]:
    """The recipe's text: its files and transcripts, or else the transcripts of its training speech."""
    root = Path(recipe.data_root)
    if recipe.text is None:
        assert recipe.data is not None  # noqa: S101  (validated by Recipe)
        return transcripts(root, recipe.data.train)
    return text_lines(root, recipe.text)


def text_lines(root: Path, text: TextData) -> Iterator[str]:
    """Sentences of the text section: files, then transcripts."""
    lines = chain.from_iterable(read_lines(root / file, max_lines=text.max_lines) for file in text.files)
    spoken = map(speak_titles, lines) if text.spoken_titles else lines
    return chain(spoken, transcripts(root, text.transcripts))


def transcripts(root: Path, refs: Sequence[ManifestRef]) -> Iterator[str]:
    """Transcripts of manifests."""
    for ref in refs:
        for utterance in taken(root, ref, on_error="skip").utterances:
            if utterance.text:
                yield utterance.text


def taken(root: Path, ref: ManifestRef, *, on_error: OnError = "stop") -> Manifest:
    """The rows of a manifest that take part: a share of them, evenly spread, so many times.

    Rows that share six words with what is kept apart are among its problems.

    Raises:
        DataError: It cannot be read, or no row takes part.
    """
    path = root / ref.path
    manifest = read_manifest(path, split=ref.split, on_error=on_error)
    rows, problems = manifest.utterances, manifest.problems
    if ref.apart_from:
        kept_apart, splits = read_held_out(f"{path}:{split}" for split in ref.apart_from), ", ".join(ref.apart_from)
        clashes = [kept_apart.shares(row.text or "") for row in rows]
        problems += tuple(
            f"{path}: {row.utt_id} shares six words with a transcript of {splits}" for row in compress(rows, clashes)
        )
        rows = tuple(row for row, clash in zip(rows, clashes, strict=True) if not clash)
        if not rows:
            raise DataError("all rows share six words with those splits", where=path, remedy="mend apart_from")
    count = max(1, round(ref.share * len(rows)))
    return Manifest(tuple(rows[i * len(rows) // count] for i in range(count)) * ref.repeat, problems)


def waveform_augment(recipe: Recipe) -> WaveformAugment:
    """What may happen to a training waveform."""
    return WaveformAugment(
        speeds=recipe.augment.speeds,
        gain_db=recipe.augment.gain_db,
        noise_probability=recipe.augment.noise_probability,
        noise_snr_db=recipe.augment.noise_snr_db,
    )


def _dev_rows(recipe: Recipe, log: Log, *, transcribed: bool) -> list[Utterance]:
    data = recipe.data
    assert data is not None  # noqa: S101  (validated by Recipe)
    rows = [row for row in _rows(recipe, data.dev, log) if row.text is not None or not transcribed]
    if data.on_error == "stop":
        _refuse_missing(rows)
    for utterance in rows:
        if not utterance.audio_filepath.is_file():
            log(f"warning: {utterance.audio_filepath}: no such file; left out of dev")
    rows = [utterance for utterance in rows if utterance.audio_filepath.is_file()]
    if not rows:
        what = "both audio and text" if transcribed else "audio"
        raise DataError(f"no utterance has {what}", where="data.dev", remedy="check the manifests")
    if transcribed and (recognized := sum(map(is_recognized, rows))):
        log(f"warning: {recognized} dev utterances have recognised text; what is scored on them is no error rate")
    return rows


def _refuse_missing(utterances: Sequence[Utterance]) -> None:
    missing = [utterance.audio_filepath for utterance in utterances if not utterance.audio_filepath.is_file()]
    if missing:
        more = f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        raise DataError(f"no such file{more}", where=missing[0], remedy="check the manifest or set data.on_error=skip")


def _rows(recipe: Recipe, refs: Sequence[ManifestRef], log: Log) -> list[Utterance]:
    assert recipe.data is not None  # noqa: S101  (validated by Recipe)
    rows: list[Utterance] = []
    for ref in refs:
        manifest = taken(Path(recipe.data_root), ref, on_error=recipe.data.on_error)
        for problem in manifest.problems:
            log(f"warning: {problem}; line left out")
        rows += manifest.utterances
    return rows
