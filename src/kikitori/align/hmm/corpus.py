"""Which phone is spoken when, for every utterance of a corpus; and the file of it."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from kikitori.align.hmm.gaussians import align, train
from kikitori.align.hmm.graph import SILENCE, state_labels, utterance_graph
from kikitori.align.hmm.mfcc import FRAMES_PER_SECOND, mfcc
from kikitori.data.speech import read_utterance
from kikitori.errors import DataError
from kikitori.io.files import write_bytes
from kikitori.text.lexicon import Lexicon
from kikitori.text.words import check_coverage
from kikitori.types import Utterance

TRAINING_HOURS = 2.0
"""Speech that the model of Gaussians learns from: as much as it can make use of."""
SEED = 1
"""Decides which utterances the model learns from."""


@dataclass(frozen=True, eq=False)
class Alignments:
    """State labels of utterances, at 100 frames a second, with their names.

    Attributes:
        states: State label of each frame by name of the utterance, (frames,) each.
    """

    labels: tuple[str, ...]
    states: dict[str, NDArray[np.uint8]]


def align_corpus(
    utterances: Sequence[Utterance],
    lexicon: Lexicon,
    in_form: Callable[[str], str],
    log_line: Callable[[str], None],
) -> Alignments:
    """Aligns what can be aligned: utterances of whose words all, in the lexicon's form, are in the lexicon.

    Raises:
        DataError: There is nothing to align, or the lexicon knows hardly any of the words.
    """
    numbers = {phone: number for number, phone in enumerate((*lexicon.phones, SILENCE))}
    texts = {utterance.utt_id: in_form(utterance.text or "") for utterance in utterances}
    spoken = {word for text in texts.values() for word in text.split()}
    check_coverage(
        spoken, lexicon.pronunciations.keys(), what="words of the transcripts and the lexicon", where="lexicon"
    )
    known = [u for u in utterances if texts[u.utt_id] and not lexicon.missing(texts[u.utt_id])]
    log_line(f"{len(known)} of {len(utterances)} utterances have words that the lexicon knows")
    if not known:
        raise DataError("nothing to align", remedy="check the lexicon and --text-form")
    order = np.random.default_rng(SEED).permutation(len(known))
    hours = np.cumsum([known[i].duration for i in order]) / 3600
    chosen = [known[i] for i in order[: 1 + int(np.searchsorted(hours, TRAINING_HOURS))]]
    pairs = [(mfcc(read_utterance(u)), utterance_graph(texts[u.utt_id], lexicon, numbers)) for u in chosen]
    labels = state_labels(lexicon.phones)
    fitting = [(rows, graph) for rows, graph in pairs if graph is not None]
    mixtures = train([rows for rows, _ in fitting], [graph for _, graph in fitting], len(labels), log_line)
    found: dict[str, NDArray[np.uint8]] = {}
    for utterance in known:
        graph = utterance_graph(texts[utterance.utt_id], lexicon, numbers)
        aligned = None if graph is None else align(mfcc(read_utterance(utterance)), graph, mixtures)
        if aligned is not None:
            found[utterance.utt_id] = aligned[0].astype(np.uint8)
    log_line(f"{len(found)} utterances aligned")
    return Alignments(labels, found)


def save_alignments(file: Path, alignments: Alignments) -> None:
    """Writes a safetensors file: all frames in a row, where each utterance ends, and names as JSON."""
    names = [*alignments.states]
    tensors = {
        "states": np.concatenate([np.zeros(0, np.uint8), *alignments.states.values()]),
        "ends": np.cumsum([len(states) for states in alignments.states.values()], dtype=np.int64),
    }
    names_of = {"utt_ids": json.dumps(names), "labels": json.dumps(alignments.labels)}
    write_bytes(file, save(tensors, metadata=names_of))


def load_alignments(file: Path) -> Alignments:
    """Reads what `save_alignments` wrote.

    Raises:
        DataError: It is missing or damaged.
    """
    try:
        with safe_open(file, framework="numpy") as opened:
            about = opened.metadata() or {}
            states, ends = opened.get_tensor("states"), opened.get_tensor("ends")
        names, labels = json.loads(about["utt_ids"]), tuple(json.loads(about["labels"]))
        if len(names) != len(ends) or (len(states) and int(states.max()) >= len(labels)):
            raise ValueError("its parts do not fit together")
    except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"no alignments ({error})", where=file, remedy="make them with kikitori align") from None
    cuts = pairwise([0, *ends.tolist()])
    return Alignments(labels, {name: states[a:b] for name, (a, b) in zip(names, cuts, strict=True)})


def segments(states: NDArray[np.uint8], labels: Sequence[str]) -> list[tuple[str, float, float]]:
    """The phones of an utterance with their beginnings and ends in seconds."""
    names = [labels[state].rpartition("/")[0] for state in states]
    # A phone said twice goes back to its first state.
    goes_on = [names[i] == names[i - 1] and states[i] >= states[i - 1] for i in range(1, len(names))]
    starts = [0, *(i for i, same in enumerate(goes_on, 1) if not same)] if names else []
    ends = [*starts[1:], len(names)]
    return [(names[a], a / FRAMES_PER_SECOND, b / FRAMES_PER_SECOND) for a, b in zip(starts, ends, strict=False)]


def word_spans(
    text: str, phones: Sequence[tuple[str, float, float]], lexicon: Lexicon
) -> list[tuple[str, float, float]]:
    """The words of a text with their beginnings and ends in seconds, from `segments`; none if the phones are others."""
    said = [phone for phone in phones if phone[0] != SILENCE]
    names = [phone[0] for phone in said]

    def fit(words: Sequence[str], at: int) -> list[tuple[str, float, float]] | None:
        if not words:
            return [] if at == len(names) else None
        for way in lexicon.pronunciations[words[0]]:
            if names[at : at + len(way)] == list(way) and (rest := fit(words[1:], at + len(way))) is not None:
                return [(words[0], said[at][1], said[at + len(way) - 1][2]), *rest]
        return None

    return fit(text.split(), 0) or []
