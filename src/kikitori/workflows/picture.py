"""Pictures of a recogniser at work: the attention of its LLM and the posteriors of its CTC head, each with its numbers.

A recording goes in; `.png` and `.npz` files of one name come out. Attention weights are those of the model that
decodes, in one pass over the transcript that it wrote (as in Figure 1 of "Integration vs. Combination"). Drawing needs
matplotlib (`pip install kikitori[train]`).
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kikitori.align.ctc import ctc_align
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.io.files import write_bytes
from kikitori.model.decoder.attention.weights import forward_attention
from kikitori.recognizer import Audio, Recognizer
from kikitori.search.autoregressive.run import shown_drafts, teacher_input
from kikitori.search.batch import EncodedBatch
from kikitori.search.guards import Guards
from kikitori.search.options import Decoding

MOST_TICKS = 90  # labels along an axis; more would cover each other
INCHES_PER_LABEL = 0.13
END = "[end]"


@dataclass(frozen=True, eq=False)
class AttentionWeights:
    """What one LLM layer attends to as it writes a transcript.

    Attributes:
        weights: (heads, written, read), each row a softmax over what is read; two with cross-attention, one over the
            speech and one over the text.
        written: The labels written, the end of the sentence last, (written,).
        read: What is read, (read,): labels of prompt and transcript, nothing for the speech. With merged attention and
            cross-attention the speech stands first.
        speech: First column of the speech and the one after its last, (2,).
        seconds: Duration of the recording.
        layer: The LLM layer, from 1.
    """

    weights: NDArray[np.float32]
    written: NDArray[np.str_]
    read: NDArray[np.str_]
    speech: NDArray[np.int64]
    seconds: float
    layer: int


@dataclass(frozen=True, eq=False)
class CTCPosteriors:
    """CTC posteriors of the labels of a transcript.

    Attributes:
        posteriors: Probability of each label of the transcript in each frame, (labels, frames).
        blank: That of blank, (frames,).
        labels: The transcript, (labels,).
        spans: First frame of each label on the best path and the one after its last, (labels, 2).
        seconds: Duration of the recording.
    """

    posteriors: NDArray[np.float32]
    blank: NDArray[np.float32]
    labels: NDArray[np.str_]
    spans: NDArray[np.int64]
    seconds: float


@torch.inference_mode()
def attention_weights(
    recognizer: Recognizer,
    audio: Audio | NDArray[Any],
    *,
    layer: int | None = None,
    decoding: Decoding | str | None = None,
) -> AttentionWeights:
    """The attention of an LLM layer (from 1; the last by default) in all its heads, over prompt, speech and transcript.

    The audio is a file, its bytes, or 16 kHz samples; the transcript is what the search finds.

    Raises:
        ModelError: The model has no LLM.
        ConfigError: The LLM has no such layer.
        AudioError: Nothing is recognised in the recording, or it cannot be.
    """
    model = recognizer.loaded.model.speech_llm
    if model is None:
        raise ModelError("an acoustic model has no attention to the speech", where=recognizer.name, remedy="draw ctc")
    batch, labels = _recognised(recognizer, audio, decoding)
    with recognizer.arithmetic():
        rows = teacher_input(batch, [labels])
        _, attention = forward_attention(model.llm, rows.embeds, rows.lengths, rows.memory)
    number = _from_1(layer, len(attention.text), "layer")
    weights = attention.text[number - 1][0]
    before = len(model.config.prompt_before)
    spoken = int(rows.speech_lengths[0])
    draft = [label for row in shown_drafts(batch) or () for label in model.config.prompt.filled_up(row)]
    text = [*model.config.prompt_before, *draft, *model.config.prompt_after, *labels]
    names = _names(batch, text)
    if rows.memory is not None:
        before, weights = 0, torch.cat([attention.speech[number - 1][0], weights], dim=-1)
    return AttentionWeights(
        weights[:, rows.target_positions[1]].float().cpu().numpy(),
        np.array([*_names(batch, labels), END]),
        np.array([*names[:before], *[""] * spoken, *names[before:]]),
        np.array([before, before + spoken]),
        batch.seconds[0],
        number,
    )


@torch.inference_mode()
def ctc_posteriors(
    recognizer: Recognizer, audio: Audio | NDArray[Any], *, decoding: Decoding | str | None = None
) -> CTCPosteriors:
    """CTC posteriors of the labels of the transcript that a search finds, and their alignment to frames.

    Raises:
        ModelError: The model has no CTC head.
        AudioError: Nothing is recognised in the recording, or more than fits into its frames.
    """
    if not recognizer.loaded.model.acoustic.config.ctc_layers:
        raise ModelError("the model has no CTC head", where=recognizer.name, remedy="draw its attention")
    batch, labels = _recognised(recognizer, audio, decoding)
    with recognizer.arithmetic():
        logits, _ = batch.ctc_logits
    log_probs = logits[0].float().log_softmax(dim=-1).cpu().numpy()
    spans = ctc_align(log_probs, labels)
    if spans is None:
        frames = f"{len(labels)} labels do not fit into {len(log_probs)} frames of the CTC head"
        raise AudioError(frames, remedy="take a search that uses the CTC head, such as ctc_greedy")
    return CTCPosteriors(
        np.exp(log_probs[:, labels].T),
        np.exp(log_probs[:, -1]),
        np.array(_names(batch, labels)),
        np.array(spans),
        batch.seconds[0],
    )


def draw_attention(found: AttentionWeights, picture: Path, *, head: int | None = None) -> None:
    """Writes a head's weights (from 1; None for the mean of all) as PNG, and all as NPZ beside it.

    Raises:
        ConfigError: There is no such head, or no matplotlib.
        DataError: A file cannot be written.
    """
    heads = len(found.weights)
    shown = found.weights.mean(axis=0) if head is None else found.weights[_from_1(head, heads, "head") - 1]
    name = f"mean of {heads} heads" if head is None else f"head {head} of {heads}"
    start, stop = (int(column) for column in found.speech)
    width = min(6.0 + 0.04 * (stop - start) + INCHES_PER_LABEL * (len(found.read) - stop + start), 40.0)
    with _figure(picture, width, 2.5 + INCHES_PER_LABEL * min(len(found.written), MOST_TICKS)) as panels:
        (panel,) = panels(1)
        # The square root shows small weights beside the sink that takes most.
        image = panel.imshow(np.sqrt(shown), aspect="auto", cmap="magma", vmin=0.0, interpolation="nearest")
        bar = panel.figure.colorbar(image, ax=panel, pad=0.01, ticks=np.sqrt([0.0, 0.01, 0.05, 0.2, 0.5, 1.0]))
        bar.ax.set_yticklabels(["0", "0.01", "0.05", "0.2", "0.5", "1"])
        for edge in (start, stop):
            if 0 < edge < len(found.read):
                panel.axvline(edge - 0.5, color="white", linewidth=0.8)
        text = [column for column in range(len(found.read)) if not start <= column < stop]
        text = text[:: -(-len(text) // MOST_TICKS) or 1]
        panel.set_xticks(text, [found.read[column] for column in text], rotation=90, fontsize=7, parse_math=False)
        _label_rows(panel, found.written, "written")
        panel.set_title(f"attention of LLM layer {found.layer}, {name}", fontsize="medium")
        if stop > start:
            seconds = _ticks(found.seconds)
            times = panel.secondary_xaxis("top")
            times.set_xticks(start - 0.5 + (stop - start) * seconds / found.seconds, [f"{s:g}" for s in seconds])
            times.set_xlabel("seconds of speech")
    _write_numbers(found, picture)


def draw_ctc(found: CTCPosteriors, picture: Path) -> None:
    """Writes the posteriors of the transcript with its alignment, and of blank, as PNG, and all as NPZ beside it.

    Raises:
        ConfigError: There is no matplotlib.
        DataError: A file cannot be written.
    """
    count, frames = found.posteriors.shape
    width = min(4.0 + 0.06 * frames, 40.0)
    with _figure(picture, width, 3.5 + INCHES_PER_LABEL * min(count, MOST_TICKS)) as panels:
        upper, lower = panels(2)
        extent = (0.0, found.seconds, count - 0.5, -0.5)
        image = upper.imshow(found.posteriors, aspect="auto", cmap="magma", vmin=0.0, vmax=1.0, extent=extent,
                             interpolation="nearest")  # fmt: skip
        upper.figure.colorbar(image, ax=[upper, lower], pad=0.01, label="probability")
        frame = found.seconds / frames
        for row, (first, last) in enumerate(found.spans):
            upper.plot([first * frame, last * frame], [row + 0.44] * 2, color="#56B4E9", linewidth=1.5)
        _label_rows(upper, found.labels, "transcript, underlined where aligned")
        centres = (np.arange(frames) + 0.5) * frame
        lower.plot(centres, found.blank, color="#999999", linewidth=1.0, label="blank")
        lower.plot(
            centres, found.posteriors.max(axis=0), color="#D55E00", linewidth=1.0, label="best of the transcript"
        )
        lower.legend(frameon=False, fontsize="small", loc="upper right", ncols=2)
        lower.set(ylim=(0.0, 1.3), yticks=[0.0, 0.5, 1.0], xlabel="seconds", ylabel="probability")
    _write_numbers(found, picture)


def _recognised(
    recognizer: Recognizer, audio: Audio | NDArray[Any], decoding: Decoding | str | None
) -> tuple[EncodedBatch, tuple[int, ...]]:
    """The encoder's output for a recording, and the labels of the best hypothesis."""
    waveform = recognizer.read(audio)
    name = audio if isinstance(audio, str | Path) else "audio"
    (found,) = recognizer.try_recognize([waveform], decoding, Guards(on_runaway="keep"))
    if isinstance(found, AudioError):
        raise AudioError(found.what, where=name, remedy=found.remedy)
    best = found[0]
    if not best.labels:
        raise AudioError("nothing is recognised, so there is nothing to draw", where=name, remedy="take some speech")
    return recognizer.encode([waveform]), best.labels


def _names(batch: EncodedBatch, labels: Sequence[int]) -> list[str]:
    return [str(name) for name in batch.units.tokenizer.convert_ids_to_tokens(list(labels))]


def _from_1(number: int | None, count: int, what: str) -> int:
    if number is None:
        return count
    if not 1 <= number <= count:
        raise ConfigError(f"there is no {what} {number}", where=f"--{what}", remedy=f"choose 1 to {count}")
    return number


def _label_rows(panel: Any, labels: NDArray[np.str_], title: str) -> None:
    rows = range(0, len(labels), -(-len(labels) // MOST_TICKS))
    panel.set_yticks(rows, [labels[row] for row in rows], fontsize=7, parse_math=False)
    panel.set_ylabel(title)


def _ticks(seconds: float) -> NDArray[np.float64]:
    step = next(step for step in (0.1, 0.5, 1.0, 5.0, 30.0, 300.0, 3600.0) if seconds / step <= 20 or step == 3600.0)
    return np.arange(0.0, seconds, step)


@contextmanager
def _figure(picture: Path, width: float, height: float) -> Iterator[Any]:
    """Gives a function from the number of panels, one above the other, to them; what is drawn is written at the end."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        remedy = "run `pip install 'kikitori[train]'`"
        raise ConfigError("pictures need matplotlib", where=picture, remedy=remedy) from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)

    def panels(count: int) -> Any:
        ratios = {"height_ratios": [height, 1.2][:count]}
        return figure.subplots(count, 1, sharex=True, squeeze=False, gridspec_kw=ratios)[:, 0]

    yield panels
    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a script that the font has not is boxes
        figure.savefig(drawn, dpi=120, format="png")
    write_bytes(picture, drawn.getvalue())


def _write_numbers(found: AttentionWeights | CTCPosteriors, picture: Path) -> None:
    values: dict[str, Any] = {field.name: getattr(found, field.name) for field in fields(found)}
    numbers = io.BytesIO()
    np.savez_compressed(numbers, **values)
    write_bytes(picture.with_suffix(".npz"), numbers.getvalue())
