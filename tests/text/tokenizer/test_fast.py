import json
import shutil

import numpy as np
import pytest

from kikitori.loading import BUNDLED, find_model
from kikitori.text.tokenizer.fast import FastTokenizer, load_fast
from kikitori.text.units import TokenizerUnits, load_units
from kikitori.text.units import _load_pretrained as load_pretrained

FOLDERS = [BUNDLED / "whisper-tiny.en", BUNDLED, find_model("mini-ja")]
TEXTS = [
    "Hello, world! It's 3.5 < 4, isn't it?",
    "<|endoftext|> </s> <s> <unk> <|en|> <|0.00|> <|startofprev|>",
    "é 聞き取り ききとり 🎉 \u00a0",
    " before and behind ",
    "a\tb\nc",
    "",
]


@pytest.fixture(scope="module", params=FOLDERS, ids=["whisper", "characters", "kana"])
def both(request):
    """Units by the tokenizers library and by transformers."""
    fast = load_units(request.param)
    assert isinstance(fast.tokenizer, FastTokenizer)
    return fast, TokenizerUnits(load_pretrained(request.param))


def test_labels_and_places_are_those_of_transformers(both):
    fast, slow = both
    assert (fast.size, fast.bos_id, fast.eos_id) == (slow.size, slow.bos_id, slow.eos_id)
    assert fast.tokenizer.unk_token_id == slow.tokenizer.unk_token_id
    assert fast.tokenizer.get_vocab() == slow.tokenizer.get_vocab()
    assert set(fast.tokenizer.all_special_ids) == set(slow.tokenizer.all_special_ids)
    assert fast.special_id("<|startofprev|>") == slow.special_id("<|startofprev|>")
    for text in TEXTS:
        assert fast.encode(text) == slow.encode(text)
        assert fast.encode_with_places(text) == slow.encode_with_places(text)
        assert fast.normalize(text) == slow.normalize(text)
    assert fast.have_labels(TEXTS) == slow.have_labels(TEXTS)


def test_texts_of_labels_are_those_of_transformers(both):
    fast, slow = both
    draw = np.random.default_rng(0)
    first = [[], *([fast.size - 1 - back] for back in range(10)), *([label] for label in range(10))]
    first += [[found] for name in ("<|startofprev|>", "<|startoftranscript|>") if (found := fast.special_id(name))]
    for row in range(300):
        labels = [*first[row % len(first)], *draw.integers(0, fast.size, row % 15).tolist()]
        assert fast.decode(labels) == slow.decode(labels)
        assert fast.tokenizer.convert_ids_to_tokens(labels) == slow.tokenizer.convert_ids_to_tokens(labels)


def test_what_transformers_makes_of_it_is_what_it_reads_itself(both, tmp_path):
    for units, folder in zip(both, (tmp_path / "fast", tmp_path / "slow"), strict=True):
        units.save(folder)
    for file in (tmp_path / "slow").iterdir():
        values, others = (json.loads((tmp_path / name / file.name).read_text()) for name in ("slow", "fast"))
        for name in ("is_local", "local_files_only"):  # where it was read from
            values.pop(name, None)
            others.pop(name, None)
        assert values == others


@pytest.mark.parametrize(
    ("settings", "other_file"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, None),
        ({"clean_up_tokenization_spaces": True}, None),
        ({"add_prefix_space": True}, None),
        ({"eos_token": "no such token"}, None),
        ({"eos_token": {"content": "</s>", "lstrip": True}}, None),
        ({}, "special_tokens_map.json"),
    ],
)
def test_what_transformers_would_change_is_left_to_it(tmp_path, settings, other_file):
    folder = tmp_path / "units"
    folder.mkdir()
    shutil.copy(BUNDLED / "tokenizer.json", folder)
    values = json.loads((BUNDLED / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(values))
    assert load_fast(folder) is not None
    (folder / "tokenizer_config.json").write_text(json.dumps(values | settings))
    if other_file:
        (folder / other_file).write_text("{}")
    assert load_fast(folder) is None
