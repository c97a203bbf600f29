"""tools/openjtalk_dictionary.py: words and readings from a compiled MeCab dictionary."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

TOOL = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tools" / "openjtalk_dictionary.py")))
ENTRIES = [
    (5000, "名詞,一般,*,*,*,*,缶ビール,カンビール,カンビール,3/5,C1"),
    (6000, "名詞,副詞可能,*,*,*,*,上,ウワ,ウワ,0/2,C1"),
    (4000, "名詞,副詞可能,*,*,*,*,上,ウエ,ウエ,0/2,C1"),
    (4000, "動詞,自立,*,*,五段・ラ行,基本形,走る,ハシル,ハシル,2/3,*"),
    (4000, "動詞,自立,*,*,五段・ラ行,未然形,走る,ハシラ,ハシラ,2/3,*"),
    (3000, "名詞,固有名詞,地域,一般,*,*,東京,トウキョウ,トーキョー,0/4,C1"),
    (3000, "名詞,固有名詞,人名,姓,*,*,宮渕,ミヤブチ,ミヤブチ,2/4,C2"),
    (7001, "名詞,一般,*,*,*,*,書癖,ショヘキ,ショヘキ,0/3,C2"),
    (3000, "記号,一般,*,*,*,*,→,ヤジルシ,ヤジルシ,0/4,*"),
    (3000, "名詞,一般,*,*,*,*,3D,スリーディー,スリーディー,0/4,*"),
]


def write_dictionary(file, charset=b"utf-8"):
    tree, texts, tokens = b"tree", b"", []
    for cost, feature in ENTRIES:
        tokens.append((0, 0, 0, cost, len(texts), 0))
        texts += feature.encode() + b"\0"
    packed = np.array(tokens, TOOL._TOKEN).tobytes()
    size = TOOL._HEADER.size + len(tree) + len(packed) + len(texts)
    numbers = (TOOL._MAGIC ^ size, 102, 0, len(tokens), 1, 1, len(tree), len(packed), len(texts), 0)
    file.write_bytes(TOOL._HEADER.pack(*numbers, charset) + tree + packed + texts)


def test_words_with_their_readings_the_usual_one_first(tmp_path):
    write_dictionary(tmp_path / "sys.dic")
    found = TOOL.words(tmp_path / "sys.dic", 7000)
    expected = {"上": ["ウエ", "ウワ"], "東京": ["トーキョー"], "缶ビール": ["カンビール"], "走る": ["ハシル"]}
    assert found == dict(sorted(expected.items()))


def test_other_files_are_refused(tmp_path):
    write_dictionary(tmp_path / "sys.dic", b"euc-jp")
    with pytest.raises(SystemExit, match=r"sys.dic: is no compiled MeCab dictionary in UTF-8"):
        TOOL.words(tmp_path / "sys.dic", 7000)
