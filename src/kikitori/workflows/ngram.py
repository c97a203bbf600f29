"""`kikitori ngram`: n-gram language models over the label units of a recogniser, or over words."""

from array import array
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from kikitori.scorers.ngram import label_words
from kikitori.text.forms.text_form import TextForm, in_form
from kikitori.text.ngram.arpa import END, START, UNKNOWN, writable, write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.packed import SUFFIX, write_packed
from kikitori.text.units import TokenizerUnits
from kikitori.text.words import check_coverage


def write_ngram(
    file: Path,
    units: TokenizerUnits,
    lines: Iterable[str],
    *,
    order: int = 4,
    min_count: int = 1,
    prune: float = 0.0,
) -> list[int]:
    """Estimates an n-gram by interpolated modified Kneser-Ney smoothing and writes it as an ARPA file.

    Every label of the units is a word of it, seen or not. Its word `<unk>` is the unknown label, if the units have one,
    and whatever an ARPA file cannot spell. N-grams of three labels and more are left out if they are rarer than
    `min_count`, and others if the text would lose less than `prune` nats per label without them. Returns how many there
    are of each order.

    Raises:
        ConfigError: No such order.
        DataError: There is no text, or the file cannot be written.
    """
    words = label_words(units)
    alphabet = [UNKNOWN, *dict.fromkeys(word for word in words if word not in (UNKNOWN, START, END))]
    numbers = {word: number for number, word in enumerate(alphabet)}
    of_label = [numbers.get(word, 0) for word in words]
    sentences = ([of_label[label] for label in units.encode(line)] for line in lines)
    ngrams = estimate(sentences, len(alphabet), order, min_count=min_count, prune=prune)
    write_arpa(file, ngrams, alphabet)
    return [len(each.last) for each in ngrams]


def write_word_ngram(
    file: Path,
    lines: Iterable[str],
    *,
    vocabulary: Collection[str] = (),
    max_words: int = 0,
    text_form: TextForm = "as_is",
    order: int = 3,
    min_count: int = 1,
    prune: float = 0.0,
) -> list[int]:
    """Estimates an n-gram over the words between spaces as `write_ngram` does; `.ngram` files are packed.

    Words beyond the vocabulary (the text's own without one, at most the `max_words` most frequent) are `<unk>`. Numbers
    go by falling frequency, which makes packed files small.

    Raises:
        ConfigError: No such order.
        DataError: There is no text, the vocabulary has hardly any of its words, or the file cannot be written.
    """
    found: dict[str, int] = {}
    text = [array("i", [found.setdefault(w, len(found)) for w in in_form(line, text_form).split()]) for line in lines]
    times = np.bincount(np.concatenate([np.zeros(0, np.int32), *text]), minlength=len(found)).tolist()
    if vocabulary:
        check_coverage(found.keys(), vocabulary, what="words of the text and the lexicon", where=file.name)
    wanted = {*vocabulary} or {*found}
    words = [word for word in wanted if writable(word) and word not in (UNKNOWN, START, END)]
    words.sort(key=lambda word: (-times[found[word]] if word in found else 0, word))
    alphabet = [UNKNOWN, *words[: max_words or None]]
    numbers = {word: number for number, word in enumerate(alphabet)}
    of_found = np.array([numbers.get(word, 0) for word in found], np.int32)
    sentences = (of_found[np.frombuffer(row, np.int32)].tolist() for row in text if row)
    ngrams = estimate(sentences, len(alphabet), order, min_count=min_count, prune=prune)
    if file.suffix == SUFFIX:
        write_packed(file, ngrams, [*alphabet, END, START])
    else:
        write_arpa(file, ngrams, alphabet)
    return [len(each.last) for each in ngrams]
