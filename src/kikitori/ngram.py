"""`kikitori ngram`: an n-gram language model over the label units of a recogniser."""

from collections.abc import Iterable
from pathlib import Path

from kikitori.decoding.ngram import UNKNOWN, label_words
from kikitori.text.kneser_ney import END, START, estimate, write_arpa
from kikitori.text.units import TokenizerUnits


def write_ngram(
    file: Path, units: TokenizerUnits, lines: Iterable[str], *, order: int = 4, min_count: int = 1
) -> list[int]:
    """Estimates an n-gram by interpolated modified Kneser-Ney smoothing and writes it as an ARPA file.

    Every label of the units is a word of it, seen or not. Its word `<unk>` is the unknown label, if the units have one,
    and whatever an ARPA file cannot spell.

    Args:
        file: To write.
        units: The label units.
        lines: Sentences; those without labels are left out.
        order: Longest n-grams, in labels.
        min_count: N-grams of three labels and more that are rarer are left out.

    Returns:
        How many n-grams there are of each order.

    Raises:
        ConfigError: No such order.
        DataError: There is no text, or the file cannot be written.
    """
    words = label_words(units)
    alphabet = [UNKNOWN, *dict.fromkeys(word for word in words if word not in (UNKNOWN, START, END))]
    numbers = {word: number for number, word in enumerate(alphabet)}
    of_label = [numbers.get(word, 0) for word in words]
    sentences = ([of_label[label] for label in units.encode(line)] for line in lines)
    ngrams = estimate(sentences, len(alphabet), order, min_count=min_count)
    write_arpa(file, ngrams, alphabet)
    return [len(each.words) for each in ngrams]
