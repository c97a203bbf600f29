import json
import shutil

import pytest

from kikitori.errors import ModelError
from kikitori.text.tokenizer.files import _may_explode, check_tokenizer
from kikitori.text.units import EOS, load_units
from tests.tiny import tiny_units

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DIGITS = r"\p{N}{1,3}(?=(?:\p{N}{3})*(?:\P{N}|$))"
BLOOM = r" ?[^(\s|[.,!?…。，、।۔،])]+"
DEEPSEEK = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"


@pytest.fixture
def folder(tmp_path):
    tiny_units().save(tmp_path)
    return tmp_path


def edit(file, **changes):
    values = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(values | changes))


def refused(folder, expected):
    with pytest.raises(ModelError, match="cannot load the tokenizer") as caught:
        check_tokenizer(folder)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "pattern", [GPT2, LLAMA3, O200K, DIGITS, BLOOM, DEEPSEEK, "[^a-z']+", r"(?<![a-z])'|'(?![a-z])"]
)
def test_patterns_of_known_tokenizers_pass(pattern):
    assert not _may_explode(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "(?:a|a)*",
        "(?>a|b){3,}",
        "((a+)b)+",
        "([^)]+)+",
        "(a+){2,5}",
        r"(\)+)*",
        r"(a)\1*",
        r"(?<x>a)\k<x>",
        r"(?<x>a\g<x>?)",
        "(?x)#[\n(a+)+]",
        "(?#[)(a+)+]",
        "[a",
    ],
)
def test_patterns_that_may_explode(pattern, folder):
    assert _may_explode(pattern)
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    edit(folder / "tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": [split]})
    refused(folder, "exponential time")


def test_what_old_releases_wrote_is_ignored(folder):
    edit(
        folder / "tokenizer_config.json",
        tokenizer_file="/home/somebody/tokenizer.json",
        special_tokens_map_file="/home/somebody/special_tokens_map.json",
        name_or_path="/home/somebody",
        vocab_file=None,
        sp_model_kwargs={},
        init_inputs=[],
        model_max_length=10**30,
        auto_map={"AutoTokenizer": ["evil.Evil", None]},
    )
    edit(folder / "special_tokens_map.json", eos_token=EOS, additional_special_tokens=["[SEP]"])
    assert load_units(folder).eos_id == tiny_units().eos_id


@pytest.mark.parametrize(
    ("file", "entries", "expected"),
    [
        ("tokenizer_config.json", {"vocab_file": "vocab.txt"}, "leads to other files (vocab_file: vocab.txt)"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["tokenizer.4.0.0.json"]}, "fast_tokenizer_files"),
        ("tokenizer_config.json", {"vocab": "/etc/passwd"}, "leads to other files"),
        ("tokenizer_config.json", {"init_inputs": ["/etc/passwd"]}, "leads to other files"),
        ("tokenizer_config.json", {"sp_model_kwargs": {"model_file": "x"}}, "other files or programs"),
        ("tokenizer_config.json", {"extra_ids": 10**9}, "a number above 1048576"),
        ("tokenizer_config.json", {"added_tokens_decoder": {str(10**9): {"content": "x"}}}, "absurd number"),
        ("tokenizer_config.json", {"tokenizer_class": "AutoModel"}, "'AutoModel' is no tokenizer"),
        ("tokenizer_config.json", {"tokenizer_class": "AutoTokenizer"}, "'AutoTokenizer' is no tokenizer"),
        ("config.json", {"tokenizer_class": "pipeline"}, "'pipeline' is no tokenizer"),
        ("special_tokens_map.json", {"tokenizer_file": "/etc/passwd"}, "leads to other files"),
        ("added_tokens.json", {f"<{i}>": i for i in range(10_001)}, "10001 added tokens"),
        ("tokenizer.json", {"decoder": {"type": "Replace", "content": "x" * 1001}}, "texts explode"),
        ("tokenizer.json", {"normalizer": [{"type": "Lowercase"}] * 101}, "texts explode"),
        ("tokenizer.json", {"normalizer": {"precompiled_charsmap": "////"}}, "damaged charsmap"),
        ("tokenizer.json", {"normalizer": {"precompiled_charsmap": 3}}, "damaged charsmap"),
        ("tokenizer.json", {"normalizer": {"Regex": ["a"]}}, "exponential time"),
    ],
)
def test_entries_that_are_refused(file, entries, expected, folder):
    edit(folder / file, **entries)
    refused(folder, expected)


@pytest.mark.parametrize("name", ["vocab.txt", "merges.txt", "spiece.model"])
def test_vocabularies_with_too_many_entries(name, folder):
    (folder / name).write_bytes(b"\n" * (2**20 + 1))
    refused(folder, f"{name} holds too many entries")


def test_a_known_class_passes(folder):
    edit(folder / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    check_tokenizer(folder)
    shutil.rmtree(folder)
    folder.mkdir()
    check_tokenizer(folder)  # nothing there, nothing bad
