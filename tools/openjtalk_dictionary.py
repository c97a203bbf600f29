"""Writes the words of Open JTalk's dictionary (NAIST-jdic) with their readings: word TAB reading in kana as they sound.

    python tools/openjtalk_dictionary.py -o dictionary.tsv.xz [--most-cost 7000]

For the lexicon of a recogniser (`tools/japanese_words.py --words`). MeCab's costs are higher for rarer words. Of verbs
and adjectives the dictionary form is taken, of names those of places alone.
"""

import argparse
import lzma
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kikitori.text.forms.japanese import spoken_kana

_HEADER = struct.Struct("<10I32s")
_MAGIC, _VERSION = 0xEF718F77, 102
_TOKEN = np.dtype(
    [("left", "<u2"), ("right", "<u2"), ("class", "<u2"), ("cost", "<i2"), ("entry", "<u4"), ("compound", "<u4")]
)
_CLASS, _DETAIL, _FORM, _WRITTEN, _SPOKEN = slice(0, 2), 2, 5, 6, 8
_DICTIONARY_FORM = ("*", "基本形")
_WORDS = re.compile(
    r"名詞,(?!固有名詞|接尾|数|非自立|特殊).*|動詞,自立|形容詞,自立|副詞,.*|感動詞,.*|連体詞,.*|接続詞,.*"
)
_PLACES = ("名詞,固有名詞", "地域")
_READABLE = re.compile(r"[ぁ-ゖァ-ヺー々〆ヶ一-鿿]+")


def entries(dictionary: Path) -> Iterator[tuple[int, list[str]]]:
    """The cost of each entry of a compiled MeCab dictionary (`sys.dic`), and what it says of the word."""
    content = dictionary.read_bytes()
    magic, version, _, _, _, _, tree, tokens, texts, _, charset = _HEADER.unpack_from(content)
    if magic ^ _MAGIC != len(content) or version != _VERSION or charset.rstrip(b"\0").lower() != b"utf-8":
        raise SystemExit(f"{dictionary}: is no compiled MeCab dictionary in UTF-8")
    start = _HEADER.size + tree
    found = np.frombuffer(content, _TOKEN, tokens // _TOKEN.itemsize, start)
    features = content[start + tokens : start + tokens + texts]
    for cost, place in zip(found["cost"].tolist(), found["entry"].tolist(), strict=True):
        yield cost, features[place : features.index(b"\0", place)].decode().split(",")


def words(dictionary: Path, most_cost: int) -> dict[str, list[str]]:
    """The readings of each word, the usual one first."""
    found: dict[str, dict[str, int]] = {}
    for cost, entry in entries(dictionary):
        kind = ",".join(entry[_CLASS])
        known = _WORDS.fullmatch(kind) or (kind, entry[_DETAIL]) == _PLACES
        if cost > most_cost or not known or entry[_FORM] not in _DICTIONARY_FORM:
            continue
        written, spoken = entry[_WRITTEN], spoken_kana(entry[_SPOKEN])
        if spoken and _READABLE.fullmatch(written):
            ways = found.setdefault(written, {})
            ways[spoken] = min(cost, ways.get(spoken, cost))
    return {written: sorted(ways, key=lambda way: (ways[way], way)) for written, ways in sorted(found.items())}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help=".tsv.xz")
    parser.add_argument("--most-cost", type=int, default=7000, help="leave rarer words out")
    options = parser.parse_args()
    import pyopenjtalk

    found = words(Path(pyopenjtalk.OPEN_JTALK_DICT_DIR.decode()) / "sys.dic", options.most_cost)
    lines = (f"{written}\t{spoken}\n" for written, ways in found.items() for spoken in ways)
    options.output.write_bytes(lzma.compress("".join(lines).encode()))
    print(f"{len(found)} words")


if __name__ == "__main__":
    main()
