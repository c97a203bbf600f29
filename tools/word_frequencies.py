"""Writes the words of a lexicon, one a line and again and again, by how common they are: text for an n-gram.

    python tools/word_frequencies.py words.tsv.xz -o frequent.txt.xz

Text of one kind alone says little of the words of others, and nothing of a word that stands alone. Frequencies are
those of the package wordfreq (Robyn Speer; data CC BY-SA 4.0): a word has a line for every occurrence in a million
words, one more, and no more than 100, so that sentences decide what follows common words. Words without a frequency
have none.
"""

import argparse
import lzma
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from kikitori.text.lexicon import read_lexicon

MOST = 100


def lines(words: Collection[str], frequencies: Mapping[str, float]) -> Iterator[str]:
    """Each word that has a frequency, as many times as it deserves."""
    for word in sorted(words):
        if word in frequencies:
            yield f"{word}\n" * min(MOST, 1 + round(1e6 * frequencies[word]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("lexicon", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True, help=".txt.xz")
    parser.add_argument("--language", default="ja")
    options = parser.parse_args()
    import wordfreq

    found = "".join(lines(read_lexicon(options.lexicon).pronunciations, wordfreq.get_frequency_dict(options.language)))
    options.output.write_bytes(lzma.compress(found.encode()))
    print(f"{found.count(chr(10))} lines")


if __name__ == "__main__":
    main()
