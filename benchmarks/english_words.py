"""How often `english` of `kikitori lexicon` is right: words of a dictionary, each taken out in turn (docs/lexicon.md).

python benchmarks/english_words.py cmudict.dict words.txt
"""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from kikitori.text.corpus import common_words, read_lines
from kikitori.text.g2p import english
from kikitori.text.g2p.dictionary import Dictionary
from kikitori.text.lexicon import Pronunciation

Ways = tuple[Pronunciation, ...]


class Without(dict[str, Ways]):
    """A dictionary from which one word is taken out."""

    taken = ""

    def __contains__(self, word: object) -> bool:
        return word != self.taken and super().__contains__(word)


def row(kind: str, entries: Without, words: list[str], pronounce: Callable[[str], Ways]) -> str:
    new = exact = close = known = 0
    for word in words:
        entries.taken = word
        if not (ways := pronounce(word)):
            continue
        right = entries.get(word)
        if right is None:
            new += 1
            continue
        known += 1
        exact += bool(set(ways) & set(right))
        close += bool(weak(ways) & weak(right))
    shares = f"{exact / known:.2f} | {close / known:.2f}" if known else "– | –"
    return f"| {kind} | {new} | {known} | {shares} |"


def weak(ways: Iterable[Pronunciation]) -> set[Pronunciation]:
    return {tuple("ah" if phone == "ih" else phone for phone in way) for way in ways}


def main(dictionary: Path, texts: Path) -> None:
    entries = Without(Dictionary(dictionary, stress=False).entries)
    words = common_words(read_lines(texts))
    source = english.EnglishWords(entries, words)
    endings, prefixes, british = english.ENDINGS, english.PREFIXES, english.BRITISH
    print("| kind | new words | tried on | exact | but for ih, ah |\n| --- | --- | --- | --- | --- |")
    print(row("all", entries, words, lambda word: source.pronounce([word]).get(word, ())))
    english.PREFIXES, english.BRITISH = {}, ()
    for letters in dict.fromkeys(ending.letters for ending in endings):
        english.ENDINGS = tuple(ending for ending in endings if ending.letters == letters)
        print(row(f"-{letters}", entries, words, source.formed))
    english.ENDINGS = ()
    for prefix, phones in prefixes.items():
        english.PREFIXES = {prefix: phones}
        print(row(f"{prefix}-", entries, words, source.formed))
    english.PREFIXES, english.BRITISH = {}, british
    print(row("British", entries, words, source.formed))
    print(row("compound", entries, words, source.compound))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
