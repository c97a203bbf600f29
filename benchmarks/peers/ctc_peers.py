"""CTC beam searches of other packages behind one signature, with pruning matched as far as they have it.

Each takes log-probabilities (frames, labels + 1), blank last, and a beam size, and returns what runs the search; that
returns the labels of its best hypothesis. Conversions that a package needs of its input are done beforehand, not timed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import exp, inf, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kikitori.search.ctc.best_path import collapse
from kikitori.search.options import CTCBeamSearch
from kikitori.search.pruning import FramePruning

FIRST_CHARACTER = 0x10000  # labels are shown to packages of texts as characters from here on
TOKEN_FLOOR, BEAM_FLOOR, BEST_TOKENS, WIDE_FLOOR = -5.0, -10.0, 20, -14.0

Run = Callable[[], list[int]]


@dataclass(frozen=True)
class Peer:
    """Another package's search.

    Attributes:
        package: Its name in the package index.
        prepare: Log-probabilities and beam size to the search.
        most_labels: Largest vocabulary that it is asked for, beyond which it takes minutes.
        ours: Our options with the same pruning, for a number of labels and a beam size.
    """

    package: str
    prepare: Callable[[NDArray[np.float32], int], Run]
    most_labels: float
    ours: Callable[[int, int], CTCBeamSearch]

    @property
    def version(self) -> str | None:
        """The installed version, None without."""
        try:
            return version(self.package)
        except PackageNotFoundError:
            return None


def _pyctcdecode(log_probs: NDArray[np.float32], beam: int) -> Run:
    from pyctcdecode import build_ctcdecoder

    return _of_texts(build_ctcdecoder, log_probs, beam)


def _ctc_beam_decoder(log_probs: NDArray[np.float32], beam: int) -> Run:
    from ctc_beam_decoder import build_ctcdecoder

    return _of_texts(build_ctcdecoder, log_probs, beam)


def _of_texts(build: Callable[..., Any], log_probs: NDArray[np.float32], beam: int) -> Run:
    import logging

    logging.getLogger("pyctcdecode").setLevel(logging.ERROR)
    decoder = build([*map(chr, range(FIRST_CHARACTER, FIRST_CHARACTER + log_probs.shape[1] - 1)), ""])

    def run() -> list[int]:
        (best, *_), *_ = decoder.decode_beams(
            log_probs, beam_width=beam, beam_prune_logp=BEAM_FLOOR, token_min_logp=TOKEN_FLOOR
        )
        return [ord(character) - FIRST_CHARACTER for character in best]

    return run


def _flashlight(log_probs: NDArray[np.float32], beam: int) -> Run:
    from flashlight.lib.text.decoder import CriterionType, LexiconFreeDecoder, LexiconFreeDecoderOptions, ZeroLM

    frames, outputs = log_probs.shape
    options = LexiconFreeDecoderOptions(
        beam_size=beam,
        beam_size_token=min(BEST_TOKENS, outputs),
        beam_threshold=-WIDE_FLOOR,
        lm_weight=0.0,
        sil_score=0.0,
        log_add=True,
        criterion_type=CriterionType.CTC,
    )
    # No label is silence: the id after the last.
    decoder = LexiconFreeDecoder(options, ZeroLM(), outputs, outputs - 1, [])

    def run() -> list[int]:
        best = decoder.decode(log_probs.ctypes.data, frames, outputs)[0]
        return collapse([token for token in best.tokens if 0 <= token < outputs], outputs - 1)

    return run


def _fast_ctc_decode(log_probs: NDArray[np.float32], beam: int) -> Run:
    from fast_ctc_decode import beam_search

    num_labels = log_probs.shape[1] - 1
    probs = np.ascontiguousarray(np.exp(np.roll(log_probs, 1, axis=1)))  # blank first
    alphabet = "".join(map(chr, range(FIRST_CHARACTER - 1, FIRST_CHARACTER + num_labels)))
    floor = _lowest_cut(num_labels)

    def run() -> list[int]:
        text, _ = beam_search(probs, alphabet, beam_size=beam, beam_cut_threshold=floor)
        return [ord(character) - FIRST_CHARACTER for character in text]

    return run


def _lowest_cut(num_labels: int) -> float:
    return min(exp(TOKEN_FLOOR), 0.99 / (num_labels + 1))  # it takes no more than one part of the outputs


def _like_texts(_: int, beam: int) -> CTCBeamSearch:
    pruning = FramePruning(score_beam=-BEAM_FLOOR, frame_labels=None, min_log_prob=TOKEN_FLOOR)
    return CTCBeamSearch(beam=beam, nbest=beam, pruning=pruning)


def _like_flashlight(_: int, beam: int) -> CTCBeamSearch:
    pruning = FramePruning(score_beam=-WIDE_FLOOR, frame_labels=BEST_TOKENS, min_log_prob=None)
    return CTCBeamSearch(beam=beam, nbest=beam, pruning=pruning)


def _like_fast(num_labels: int, beam: int) -> CTCBeamSearch:
    pruning = FramePruning(score_beam=None, frame_labels=None, min_log_prob=log(_lowest_cut(num_labels)))
    return CTCBeamSearch(beam=beam, nbest=1, pruning=pruning)


PEERS = (
    Peer("ctc-beam-decoder", _ctc_beam_decoder, inf, _like_texts),
    Peer("pyctcdecode", _pyctcdecode, inf, _like_texts),
    Peer("flashlight-text", _flashlight, inf, _like_flashlight),
    Peer("fast-ctc-decode", _fast_ctc_decode, 1000, _like_fast),
)
