"""From a recipe to data: filtered utterances, transcripts and sentences as labels."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from kikitori.data.layouts.index import index, is_sharded
from kikitori.data.manifest import OnError
from kikitori.data.overlap import read_held_out
from kikitori.data.rows import HaveLabels, Read, Rows, joined, read_rows
from kikitori.data.speech import FilterReport, SpeechLoader, check_files, filter_rows
from kikitori.errors import DataError, counted
from kikitori.io.progress import Bar
from kikitori.text.corpus import read_lines, speak_titles
from kikitori.text.normalize import default_normalizer, normalize
from kikitori.text.units import TokenizerUnits
from kikitori.train.recipe.adaptation import TextAdaptationRecipe
from kikitori.train.recipe.base import SpeechTrainingRecipe
from kikitori.train.recipe.data import ManifestRef, TextData
from kikitori.train.recipe.language_model import LanguageModelRecipe
from kikitori.train.recipe.speech import AcousticModelRecipe, SpeechLLMRecipe

Log = Callable[[str], None]
SHARES = "shares six words with a transcript of"
"""What is said of rows that `exclude_overlap_with` leaves out."""


def _untold(_: str) -> None:
    """The log of what is read a second time."""


def load_speech(
    recipe: SpeechTrainingRecipe, units: TokenizerUnits | None, log: Log
) -> tuple[SpeechLoader, SpeechLoader | None]:
    """Loads speech to train on, augmented, and dev speech; what is left out is logged.

    Args:
        recipe: The run's recipe.
        units: Label units of the transcripts; None where the speech needs none.
        log: Takes lines for the log.

    Raises:
        DataError: A manifest or a file is missing, or nothing is left.
    """
    data = recipe.data
    kept = read_training_rows(recipe, "train", data.train, units, log)
    train = SpeechLoader(kept, recipe.augment, seed=recipe.seed, cache=data.cache_audio, on_error=data.on_error)
    if not data.dev:
        return train, None
    held_out = _dev_rows(recipe, log, transcribed=units is not None)
    log(f"dev: {counted(len(held_out), 'utterance')}, {held_out.durations.sum() / 3600:.2f} h")
    return train, SpeechLoader(held_out, cache=data.cache_audio, on_error=data.on_error)


def check_speech(loader: SpeechLoader, bar: Bar) -> list[str]:
    """Compares rows with the headers of their files, as a run would find out later; what is said of them.

    Raises:
        DataError: A file cannot be read in full and that stops a run, or none can.
    """
    names = {utterance.utt_id for utterance in loader.utterances}
    with bar("checking files", len(loader.utterances)) as advance:
        report = check_files(loader.utterances, advance)
    if report.problems and (loader.on_error == "stop" or len(report.problems) == len(names)):
        more = f" (and {len(report.problems) - 1} more cannot be read)" if len(report.problems) > 1 else ""
        remedy = "or set data.on_error=skip" if loader.on_error == "stop" else "check the manifests"
        raise DataError(f"{next(iter(report.problems.values()))}{more}", remedy=remedy)
    lines = [f"warning: {problem}; left out" for problem in report.problems.values()]
    if report.cut:
        lines.append(
            f"warning: {counted(len(report.cut), 'file')} longer than their only row, read that far ({report.cut[0]})"
        )
    return lines


def read_training_rows(
    recipe: SpeechTrainingRecipe, what: str, refs: Sequence[ManifestRef], units: TokenizerUnits | None, log: Log
) -> Rows:
    """Reads the rows that can be trained on, by `units` if any; logs `what` they are for and what is left out."""
    kept, report = filtered_rows(recipe, refs, labels_of(units), log)
    for line in report.lines():
        log(f"{what}: {line}")
    if not kept:
        raise DataError("no utterance is left to train on", remedy="see the lines above")
    return kept


def labels_of(units: TokenizerUnits | None) -> HaveLabels | None:
    """Whether texts have labels in some units; None without units."""
    return None if units is None else units.have_labels


def filtered_rows(
    recipe: SpeechTrainingRecipe, refs: Sequence[ManifestRef], have_labels: HaveLabels | None, log: Log
) -> tuple[Rows, FilterReport]:
    """The rows of manifests that can be trained on, and what is left out of them; broken lines are logged.

    Raises:
        DataError: A manifest is missing or, unless the recipe skips such, a file is, or a line is broken.
    """
    data = recipe.data
    speech = [*_rows(recipe, [ref for ref in refs if not ref.nonspeech], log, have_labels)]
    rows = joined([*speech, *_rows(recipe, [ref for ref in refs if ref.nonspeech], log)])
    if data.on_error == "stop":
        _refuse_missing(rows)
    return filter_rows(rows, min_seconds=data.min_seconds, max_seconds=data.max_seconds)


def load_sentences(
    recipe: LanguageModelRecipe | TextAdaptationRecipe, units: TokenizerUnits, log: Log
) -> tuple[list[list[int]], list[list[int]]]:
    """Loads training and held-out sentences as labels."""
    text = recipe.text
    train, dev = (
        [labels for line in lines if (labels := units.encode(line)[: text.max_labels])]
        for lines in _held_apart(Path(recipe.data_root), text)
    )
    log(
        f"train: {counted(len(train), 'sentence')}, {sum(map(len, train)) / 1e6:.2f} M labels; "
        f"dev: {counted(len(dev), 'sentence')}"
    )
    return train, dev


def read_unit_text(recipe: AcousticModelRecipe | SpeechLLMRecipe | LanguageModelRecipe, log: Log) -> Iterable[str]:
    """What label units are trained on: text, or else transcripts, that the recipe trains on; none that it leaves out.

    Raises:
        DataError: A manifest or a file is missing, or nothing is left.
    """
    root = Path(recipe.data_root)
    if recipe.task == "language_model":
        return _held_apart(root, recipe.text)[0]
    if recipe.text is not None:
        return read_text(root, recipe.text)
    # A text without labels, of which only the units can tell, adds nothing to them.
    kept, report = filtered_rows(recipe, recipe.data.train, lambda texts: [True] * len(texts), _untold)
    if not (kept.table["characters"] > 0).any():
        for line in report.lines():
            log(f"train: {line}")
        raise DataError("no utterance is left whose transcript could train label units", remedy="see the lines above")
    return (utterance.text or "" for utterance in kept)


def read_text(root: Path, text: TextData) -> Iterator[str]:
    """Reads the sentences of the text section: files, then transcripts."""
    lines = chain.from_iterable(read_lines(root / file, max_lines=text.max_lines) for file in text.files)
    spoken = map(speak_titles, lines) if text.spoken_titles else lines
    return chain(spoken, read_transcripts(root, text.transcripts))


def read_transcripts(root: Path, refs: Sequence[ManifestRef]) -> Iterator[str]:
    """Reads the transcripts of manifests."""
    for ref in refs:
        for utterance in read_ref(root, ref, on_error="skip").rows:
            if utterance.text:
                yield utterance.text


def read_ref(
    root: Path,
    ref: ManifestRef,
    *,
    on_error: OnError = "stop",
    have_labels: HaveLabels | None = None,
    log: Log = _untold,
) -> Read:
    """Reads the rows of a manifest, or of shards, that take part: a fraction of them, evenly spread, so many times.

    Rows that share six words with the splits of `exclude_overlap_with` are among its problems.

    Raises:
        DataError: It cannot be read, or no row takes part.
    """
    path, left_out = root / ref.path, tuple[str, ...]()
    if is_sharded(path):
        path, left_out = index(path, log)
        if left_out and on_error == "stop":
            more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
            raise DataError(f"{left_out[0]}{more}", remedy="mend the shards or set data.on_error=skip")
    rows, problems = read_rows(
        path, split=ref.split, on_error=on_error, have_labels=have_labels, nonspeech=ref.nonspeech
    )
    problems += left_out
    if ref.exclude_overlap_with:
        splits = ", ".join(ref.exclude_overlap_with)
        held_out = read_held_out(f"{path}:{split}" for split in ref.exclude_overlap_with)
        clashes = np.array([held_out.shares(row.text or "") for row in rows])
        problems += tuple(f"{path}: {row.utt_id} {SHARES} {splits}" for row in rows.take(clashes))
        rows = rows.take(~clashes)
        if not rows:
            raise DataError(
                "all rows share six words with those splits", where=path, remedy="mend exclude_overlap_with"
            )
    count = max(1, round(ref.share * len(rows)))
    if count < len(rows) or ref.repeat > 1:
        rows = rows.take(np.tile(np.arange(count) * len(rows) // count, ref.repeat))
    return Read(rows, problems)


def _held_apart(root: Path, text: TextData) -> tuple[list[str], list[str]]:
    """The sentences to train on, and those held out for dev, evenly spread."""
    lines = list(read_text(root, text))
    count = min(text.dev_lines, len(lines) // 2)
    held_out = {int(i * len(lines) / count) for i in range(count)}
    return [line for i, line in enumerate(lines) if i not in held_out], [lines[i] for i in sorted(held_out)]


def _dev_rows(recipe: SpeechTrainingRecipe, log: Log, *, transcribed: bool) -> Rows:
    data = recipe.data
    rows = joined(_rows(recipe, data.dev, log))
    if transcribed:
        rows = rows.take(rows.table["characters"] >= 0)
    if data.on_error == "stop":
        _refuse_missing(rows)
    for utterance in rows.take(~rows.table["there"]):
        log(f"warning: {utterance.audio_filepath}: no such file; left out of dev")
    rows = rows.take(rows.table["there"])
    if not rows:
        what = "both audio and text" if transcribed else "audio"
        raise DataError(f"no utterance has {what}", where="data.dev", remedy="check the manifests")
    if data.max_dev_utterances and len(rows) > data.max_dev_utterances:
        step = len(rows) / data.max_dev_utterances
        rows = rows.take([int(i * step) for i in range(data.max_dev_utterances)])
    if transcribed:
        form = default_normalizer([recipe.language])
        if not any(normalize(form, row.text or "") for row in rows):
            shown = ", ".join(row.utt_id for row in rows[:3])
            what = f"no utterance {'that is taken ' * bool(data.max_dev_utterances)}has words to score ({shown})"
            raise DataError(what, where="data.dev", remedy="give transcripts to some")
    if transcribed and (recognized := int(rows.table["recognized"].sum())):
        log(f"warning: {recognized} dev utterances have recognised text; what is scored on them is no error rate")
    return rows


def _refuse_missing(rows: Rows) -> None:
    missing = rows.take(~rows.table["there"])
    if missing:
        more = f" (and {len(missing) - 1} more are missing)" if len(missing) > 1 else ""
        remedy = "check the manifest or set data.on_error=skip"
        raise DataError(f"no such file{more}", where=missing[0].audio_filepath, remedy=remedy)


def _rows(
    recipe: SpeechTrainingRecipe, refs: Sequence[ManifestRef], log: Log, have_labels: HaveLabels | None = None
) -> Iterator[Rows]:
    for ref in refs:
        root, on_error = Path(recipe.data_root), recipe.data.on_error
        rows, problems = read_ref(root, ref, on_error=on_error, have_labels=have_labels, log=log)
        for problem in problems:
            log(f"warning: {problem}; line left out")
        yield rows
