"""Cuts Japanese text into words with Open JTalk, with the reading of each.

    python tools/japanese_words.py TEXT... -o words.txt.xz --lexicon words.tsv.xz [--readings readings.tsv.xz]
        [--column 2] [--max-lines 60000] [--min-count 3] [--most 20000] [--words more.tsv.xz] [--avoid MANIFEST ...]

Writes the words with spaces between them, one sentence a line, for a word n-gram (`kikitori ngram --words`); the
pronunciation lexicon of those words, in the phones that readings in kana have; and, for synthesisers that cannot read
kanji, sentence TAB reading. Words of a dictionary (`tools/openjtalk_dictionary.py`) join the lexicon behind those of
the text. A manifest after --avoid is for measuring: sentences that share 12 characters with its transcripts, or are
one of them, are left out.
"""

import argparse
import lzma
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path

from kikitori.data.overlap import HeldOut, read_held_out
from kikitori.text.corpus import read_lines
from kikitori.text.forms.japanese import spoken_kana
from kikitori.text.g2p.japanese import kana_phones
from kikitori.text.lexicon import Lexicon, Pronunciation, write_lexicon

Words = list[tuple[str, str]]
"""Written and spoken, in kana; the spoken form of a pause is empty."""

RARE_READING = 0.05
"""Readings of a word that are rarer than this share of its occurrences are mostly mistakes of Open JTalk's."""
NOTES = ["Words and readings by Open JTalk (modified BSD) with its dictionary NAIST-jdic (BSD)"]
LENGTHENS = {"i": "e", "u": "o"}
_READABLE = re.compile(r"[ぁ-ゖァ-ヺー々〆ヶ一-鿿、。！？「」『』（）…・―— ]+")
_SENTENCE_END = re.compile(r"(?<=[。！？])")


def cut(sentence: str) -> Words:
    """The words of a sentence; empty if it is not to be read in one way only."""
    import pyopenjtalk

    if not _READABLE.fullmatch(sentence):
        return []
    return [(word["string"], spoken_kana(word["pron"])) for word in pyopenjtalk.run_frontend(sentence)]


def sentences(files: Iterable[Path], column: int, max_lines: int, avoid: HeldOut) -> Iterator[str]:
    """Sentences of text files."""
    for line in chain.from_iterable(read_lines(path, max_lines=max_lines) for path in files):
        text = line.rstrip("\n").split("\t")[column - 1] if column else line
        found = map(str.strip, _SENTENCE_END.split(text))
        yield from (sentence for sentence in found if sentence and not avoid.shares(sentence))


def pronunciations(
    readings: dict[str, Counter[str]], min_count: int, most: int, others: Mapping[str, Iterable[str]] | None = None
) -> Lexicon:
    """The commonest words, each with its usual readings, and other words with theirs."""
    counts = Counter({word: ways.total() for word, ways in readings.items() if ways.total() >= min_count})
    spoken = {
        word: [reading for reading, times in readings[word].most_common() if times >= RARE_READING * count]
        for word, count in counts.most_common(most or None)
    }
    found = {}
    for word in {**spoken, **(others or {})}:
        both = dict.fromkeys([*spoken.get(word, ()), *(others or {}).get(word, ())])
        ways = [kana_phones(reading, long_vowels=True) for reading in both]
        if said := [way for way in ways if way]:
            found[word] = with_joints(said)
    return Lexicon(found)


def read_words(file: Path) -> dict[str, list[str]]:
    """Words with their readings, the usual one first, from lines word TAB reading."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in read_lines(file):
        word, _, reading = line.rstrip("\n").partition("\t")
        found[word].append(reading)
    return found


def with_joints(ways: Iterable[Pronunciation]) -> tuple[Pronunciation, ...]:
    """Pronunciations, and how they begin behind a word whose last vowel they lengthen: して いる is シテール."""
    both = ((way, (LENGTHENS[way[0]], *way[1:])) if way[0] in LENGTHENS else (way,) for way in ways)
    return tuple(dict.fromkeys(chain.from_iterable(both)))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", type=Path, nargs="+")
    parser.add_argument("-o", "--output", type=Path, help="words with spaces, .xz")
    parser.add_argument("--lexicon", type=Path, help="pronunciations, .tsv.xz")
    parser.add_argument("--readings", type=Path, help="sentence TAB reading, .tsv.xz")
    parser.add_argument("--column", type=int, default=0, help="of the text in .tsv, from 1")
    parser.add_argument("--max-lines", type=int, default=0, help="of each file, evenly spread; 0 takes all")
    parser.add_argument("--min-count", type=int, default=1, help="leave rarer words out of the lexicon")
    parser.add_argument("--most", type=int, default=0, help="words of the lexicon, the commonest; 0 takes all")
    parser.add_argument("--words", type=Path, help="word TAB reading, of a dictionary, for the lexicon")
    parser.add_argument("--avoid", action="append", default=[], help="manifest for measuring")
    options = parser.parse_args()

    readings: dict[str, Counter[str]] = defaultdict(Counter)
    lines, spoken = [], []
    for sentence in sentences(options.text, options.column, options.max_lines, read_held_out(options.avoid)):
        words = cut(sentence)
        said = [(word, reading) for word, reading in words if reading]
        for word, reading in said:
            readings[word][reading] += 1
        if said:
            lines.append(" ".join(word for word, _ in said) + "\n")
            spoken.append(f"{sentence}\t{''.join(reading or '、' for _, reading in words)}\n")
    for path, content in ((options.output, lines), (options.readings, spoken)):
        if path:
            path.write_bytes(lzma.compress("".join(content).encode()))
    if options.lexicon:
        others = read_words(options.words) if options.words else None
        write_lexicon(options.lexicon, pronunciations(readings, options.min_count, options.most, others), NOTES)
    print(f"{len(lines)} sentences, {len(readings)} words")


if __name__ == "__main__":
    main()
