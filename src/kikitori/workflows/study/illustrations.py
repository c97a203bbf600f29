"""What a study's page shows beside its tables: learning curves, heat maps of scales, sounds, the model at work."""

import base64
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import product
from pathlib import Path

import numpy as np
import yaml

from kikitori.data.speech import read_utterance
from kikitori.io.audio import SAMPLE_RATE
from kikitori.io.codecs.encoders import OPUS, encoded
from kikitori.scoring.charts import heat_map, line_chart
from kikitori.scoring.comparison.compare import Comparison
from kikitori.scoring.comparison.tables import shown_rows
from kikitori.scoring.page import Extras, Figure
from kikitori.train.loop.curves import Curve, read_curves
from kikitori.train.loop.metrics import METRICS
from kikitori.types import Utterance
from kikitori.workflows.picture import attention_weights, ctc_posteriors, draw_attention, draw_ctc
from kikitori.workflows.study.digests import changed
from kikitori.workflows.study.plan import Plan, Trial
from kikitori.workflows.study.run import CELLS, FAILURES, RUNS, recognizer_of

LONGEST_S = 30.0
"""Longer recordings have no player."""
KILOBITS = 21.0
"""A second of Opus in players."""


def extras_of(plan: Plan, folder: Path, compared: Sequence[Comparison], rates: Mapping[str, float]) -> Extras:
    """All of them.

    Args:
        plan: Of the study.
        folder: Of the study, with its runs.
        compared: Finished cells, by each normalizer; none of fewer than two cells.
        rates: Of the cells that have results, by name.
    """
    figures = [*learning_curves(plan, folder), *scale_maps(plan, rates)]
    shown: list[Utterance] = []
    if compared:
        shown = [rows[0].prediction.utterance for rows in shown_rows(compared[0])]
        first = next(iter(compared[0].rows.values()))[0].prediction.utterance
        figures += at_work(plan, folder, min(rates, key=lambda name: rates[name]), (shown or [first])[0])
    return Extras(tuple(figures), tuple(map(player, shown)), configuration(plan))


def at_work(plan: Plan, folder: Path, cell: str, utterance: Utterance) -> list[Figure]:
    """The attention and the CTC posteriors of a cell over an utterance, as far as it has them and they can be drawn.

    They are kept beside the cell's report, by the utterance.
    """
    trial = next(trial for trial in plan.trials if trial.cell.name == cell)
    kept = folder / CELLS / trial.digest
    place = " ".join(map(str, (utterance.audio_filepath, utterance.offset, *(utterance.byte_range or ()))))
    known = f"{zlib.crc32(place.encode(errors='replace')):08x}"
    drawn = {"attention": kept / f"attention-{known}.png", "CTC posteriors": kept / f"ctc-{known}.png"}
    if not any(picture.is_file() for picture in drawn.values()):
        _draw(trial, folder / RUNS, utterance, *drawn.values())
    return [
        Figure(f"{cell}: {what}", f"Of {utterance.utt_id}, with the text that the search finds.", image=_png(picture))
        for what, picture in drawn.items()
        if picture.is_file()
    ]


def learning_curves(plan: Plan, folder: Path) -> list[Figure]:
    """The training loss and each dev score of all trainings, those of starts among them."""
    losses: dict[str, dict[str, Curve]] = {}
    scores: dict[str, dict[str, Curve]] = {}
    for name, digest in _trainings(plan).items():
        of_run = read_curves(folder / RUNS / digest / METRICS)
        for found, kept in zip(of_run, (losses, scores), strict=True):
            for key, curve in found.items():
                kept.setdefault(key, {})[name] = curve
    charts = [line_chart("training loss", "epoch", losses.get("loss", {}))]
    charts += [line_chart(f"dev {key}".replace("_", " "), "epoch", curves) for key, curves in scores.items()]
    text = "Of each training; cells that share one are on one line."
    return [Figure(f"Learning: {chart.title}", text, lines=chart) for chart in charts if chart is not None]


def scale_maps(plan: Plan, rates: Mapping[str, float]) -> list[Figure]:
    """Error rates over each two axes whose values are all numbers, with the first values of the other axes."""
    axes = {axis: [*map(str, values)] for axis, values in plan.study.axes.items()}
    numeric = [axis for axis, values in axes.items() if len(values) > 1 and all(map(_is_number, values))]
    known = {tuple(cell.values.items()): rates[cell.name] for cell in plan.cells if cell.name in rates}
    figures = []
    for place, down in enumerate(numeric):
        for right in numeric[:place]:
            others = {axis: values[0] for axis, values in axes.items() if axis not in (right, down)}
            found = {
                (column, row): known[key]
                for column, row in product(axes[right], axes[down])
                if (key := tuple((axis, {right: column, down: row, **others}[axis]) for axis in axes)) in known
            }
            if len(found) > 2:
                drawn = heat_map("Error rate (%)", (right, axes[right]), (down, axes[down]), found)
                rest = ", ".join(f"{axis} {value}" for axis, value in others.items())
                text = f"The best is framed{f'; {rest}' if rest else ''}."
                figures.append(Figure(f"{right} and {down}", text, heat=drawn))
    return figures


def player(utterance: Utterance) -> str | None:
    """The sound of an utterance as a `data:` address; None of what is too long or cannot be read."""
    if utterance.duration > LONGEST_S:
        return None
    try:
        sound = encoded(read_utterance(utterance), SAMPLE_RATE, OPUS, KILOBITS)
    except FAILURES:
        return None
    return f"data:audio/ogg;base64,{base64.b64encode(sound).decode()}"


def configuration(plan: Plan) -> str:
    """The study as YAML, without what is as by default."""
    text: str = yaml.safe_dump(changed(plan.study), sort_keys=False, allow_unicode=True, width=100)
    return text


def _draw(trial: Trial, runs: Path, utterance: Utterance, attention: Path, ctc: Path) -> None:
    # A report of many hours is worth more than its pictures, and a cell may lack LLM, CTC head, memory or matplotlib.
    with suppress(*FAILURES):
        recognizer, waveform = recognizer_of(trial, runs), read_utterance(utterance)
        with suppress(*FAILURES):
            draw_attention(attention_weights(recognizer, waveform), attention)
        draw_ctc(ctc_posteriors(recognizer, waveform), ctc)


def _png(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _trainings(plan: Plan) -> dict[str, str]:
    """Digests of trainings by the names of what starts from or consists of them."""
    names: dict[str, list[str]] = {}
    seeds = {trial.seed for trial in plan.trials}
    for trial in plan.trials:
        if trial.training is not None:
            seed = f", seed {trial.seed}" if len(seeds) > 1 else ""
            names.setdefault(trial.training.digest, []).append(trial.cell.name + seed)
    found = {}
    for digest in plan.trainings:
        first, *others = names.get(digest, ["a start"])
        name = f"{first} and {len(others)} more" if others else first
        while name in found:
            name += " "
        found[name] = digest
    return found


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
