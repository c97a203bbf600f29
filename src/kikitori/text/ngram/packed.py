"""Small files of n-grams, `.ngram`: two bytes an n-gram, where an ARPA file takes thirty.

Inside the compression of xz lies a safetensors file of bytes: the words, and by order how many n-grams each n-gram of
the order below begins, how far each last word is from the one before it, and their two logarithms in 256 even steps.
Places are not in it, so that no file can point to where nothing is.
"""

import lzma
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from kikitori.errors import ConfigError, ModelError
from kikitori.io.files import write_bytes
from kikitori.text.ngram.arpa import END, IMPOSSIBLE, MOST_ORDERS, START, UNKNOWN, NGrams, writable

SUFFIX = ".ngram"
MAX_BYTES = 2**30
"""Of a file as it is unpacked: some 120 million n-grams."""
STEPS = 255

Bytes = NDArray[np.uint8]
Arrays = dict[str, NDArray[np.generic]]


def write_packed(file: Path, ngrams: Sequence[NGrams], words: Sequence[str]) -> None:
    """Writes n-grams by order over the words of all unigrams, `<s>` and `</s>` among them.

    Logarithms lose what lies between their 256 steps, and what nothing follows backs off for free.

    Raises:
        ConfigError: A word that the format cannot hold.
        DataError: The file cannot be written.
    """
    for word in words:
        if not writable(word):
            raise ConfigError(f"no word for an n-gram: {word!r}", where=file)
    arrays: Arrays = {"words": np.frombuffer("\n".join(words).encode(), np.uint8)}
    for n, each in enumerate(ngrams, start=1):
        if n > 1:
            followers = np.bincount(each.prefixes, minlength=len(ngrams[n - 2].last))
            arrays[f"followers.{n}"] = _planes(followers)
            arrays[f"gaps.{n}"] = _planes(_gaps(each.prefixes, each.last))
        possible = each.log10_probs > IMPOSSIBLE
        lowest = each.log10_probs[possible].min(initial=0.0)
        arrays[f"probs.{n}"], arrays[f"probs_range.{n}"] = _stepped(np.maximum(each.log10_probs, lowest))
        if n < len(ngrams):
            followed = np.bincount(ngrams[n].prefixes, minlength=len(each.last)) > 0
            arrays[f"backoffs.{n}"], arrays[f"backoffs_range.{n}"] = _stepped(each.log10_backoffs[followed])
    write_bytes(file, lzma.compress(save(arrays), preset=6))


def read_packed(file: Path) -> tuple[tuple[NGrams, ...], list[str]]:
    """Reads a file; as `arpa.read_arpa`.

    Raises:
        ModelError: It is missing, damaged or unpacks to more than a gigabyte.
    """
    try:
        arrays: Arrays = load(_unpacked(file))
        words = arrays["words"].tobytes().decode("utf-8").split("\n")
        if len({*words}) != len(words) or not {START, END, UNKNOWN} <= {*words}:
            raise ValueError("no vocabulary")
        found: list[NGrams] = []
        while f"probs.{len(found) + 1}" in arrays and len(found) < MOST_ORDERS:
            found.append(_order(arrays, found, len(words)))
        if not found:
            raise ValueError("no n-grams")
    except OSError as error:
        raise ModelError(f"cannot be read ({error.strerror})", where=file, remedy="check the path") from None
    except (KeyError, ValueError, EOFError, lzma.LZMAError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ModelError(f"no sound n-gram ({reason})", where=file, remedy="make the file again") from None
    found[0].log10_probs[words.index(START)] = IMPOSSIBLE
    return tuple(found), words


def _unpacked(file: Path) -> bytes:
    unpacker = lzma.LZMADecompressor(format=lzma.FORMAT_XZ, memlimit=MAX_BYTES)
    content = unpacker.decompress(file.read_bytes(), max_length=MAX_BYTES)
    if not unpacker.eof:
        raise ValueError("it is cut off, or too large")
    return content


def _order(arrays: Arrays, found: Sequence[NGrams], num_words: int) -> NGrams:
    """The n-grams of the next order, checked: their words ascend behind each context."""
    n = len(found) + 1
    probs = _unstepped(arrays[f"probs.{n}"], arrays[f"probs_range.{n}"])
    if n == 1:
        prefixes, last = np.zeros(num_words, np.int64), np.arange(num_words)
    else:
        followers, last = _joined(arrays[f"followers.{n}"]), _joined(arrays[f"gaps.{n}"])
        if len(followers) != len(found[-1].last) or followers.sum() != len(last):
            raise ValueError("contexts and n-grams differ in number")
        prefixes = np.repeat(np.arange(len(followers)), followers)
        last = _filled(followers, last)
        if (last >= num_words).any() or (np.diff(prefixes * num_words + last) <= 0).any():
            raise ValueError("words out of order")
    backoffs = np.zeros(len(last))
    if f"followers.{n + 1}" in arrays:
        followed = _joined(arrays[f"followers.{n + 1}"]) > 0
        if len(followed) != len(last):
            raise ValueError("contexts and n-grams differ in number")
        backoffs[followed] = _unstepped(arrays[f"backoffs.{n}"], arrays[f"backoffs_range.{n}"])
    if len(last) != len(probs) or (probs > 0).any():
        raise ValueError("n-grams and probabilities differ in number")
    return NGrams(prefixes, last.astype(np.int32), probs, backoffs)


def _planes(numbers: NDArray[np.integer]) -> Bytes:
    """Numbers below 2^24 as rows of their lowest, middle and highest bytes, which compress better apart."""
    return np.stack([(numbers >> shift & 255).astype(np.uint8) for shift in (0, 8, 16)])


def _joined(planes: NDArray[np.generic]) -> NDArray[np.int64]:
    if planes.dtype != np.uint8 or planes.ndim != 2 or len(planes) != 3:
        raise ValueError("numbers of another kind")
    whole: NDArray[np.int64] = np.array([1, 1 << 8, 1 << 16]) @ planes.astype(np.int64)
    return whole


def _gaps(prefixes: NDArray[np.int64], last: NDArray[np.int32]) -> NDArray[np.int64]:
    """How far each word is from the one before it behind the same context, or from 0."""
    fresh = np.diff(prefixes, prepend=-1) != 0
    return np.where(fresh, last, np.diff(last, prepend=0)).astype(np.int64)


def _filled(followers: NDArray[np.int64], gaps: NDArray[np.int64]) -> NDArray[np.int64]:
    """The words of `_gaps`."""
    sums = np.append(0, np.cumsum(gaps))
    before = np.cumsum(followers) - followers  # where the words behind each context begin
    words: NDArray[np.int64] = sums[1:] - np.repeat(sums[before], followers)
    return words


def _stepped(logs: NDArray[np.float64]) -> tuple[Bytes, NDArray[np.float64]]:
    """Numbers in even steps, and between which two they lie."""
    low, high = (logs.min(), logs.max()) if len(logs) else (0.0, 0.0)
    width = max(high - low, 1e-9) / STEPS
    return np.round((logs - low) / width).astype(np.uint8), np.array([low, high], np.float64)


def _unstepped(steps: NDArray[np.generic], between: NDArray[np.generic]) -> NDArray[np.float64]:
    if steps.dtype != np.uint8 or steps.ndim != 1 or between.dtype != np.float64 or between.shape != (2,):
        raise ValueError("numbers of another kind")
    if not np.isfinite(between).all():
        raise ValueError("no finite numbers")
    low, high = between.tolist()
    logs: NDArray[np.float64] = high - (STEPS - steps.astype(np.float64)) * ((high - low) / STEPS)
    return logs
