"""Attacks by tokenizer and processor files."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

from tests.hostile.attack import AUTO_MAP, add, attack, config, edit, insert, plant_module, read


def tokenizer(model: Path, **changes: Any) -> None:
    edit(model / "tokenizer_config.json", **changes)


@attack()
def code_for_an_unknown_tokenizer(model: Path) -> None:
    plant_module(model)
    tokenizer(model, auto_map=AUTO_MAP, tokenizer_class="EvilTokenizer", trust_remote_code=True)


@attack("units")
def code_for_the_tokenizer_of_an_llm(model: Path) -> None:
    plant_module(model)
    tokenizer(model, auto_map=AUTO_MAP, tokenizer_class="EvilTokenizer")
    config(model, model_type="evil", auto_map=AUTO_MAP)


add(
    "tokenizer_class_of_nobody",
    lambda model: tokenizer(model, tokenizer_class="EvilTokenizer"),
    refused=False,  # transformers takes its general class
)
for _name in ("AutoModel", "AutoModelForCausalLM", "GPT2LMHeadModel", "pipeline", "os.system", "../x"):
    add(f"tokenizer_class_{_name}", lambda model, name=_name: tokenizer(model, tokenizer_class=name))
add("tokenizer_class_of_another_type", lambda model: tokenizer(model, tokenizer_class=["LlamaTokenizer"]))
add("tokenizer_class_in_config", lambda model: config(model, tokenizer_class="AutoModel"))


@attack()
def tokenizer_with_a_foreign_dictionary(model: Path) -> None:
    secret = model.parent / "outside" / "sudachi.json"
    secret.write_text("{}")
    options = {"sudachi_config_path": str(secret)}
    tokenizer(
        model,
        tokenizer_class="BertJapaneseTokenizer",
        word_tokenizer_type="sudachi",
        sudachi_kwargs=options,
        mecab_kwargs={"mecab_option": f"-r {secret}"},
    )


def secret_tokenizer(model: Path, name: str = "tokenizer.json") -> str:
    """Moves tokenizer.json outside; returns where to."""
    target = model.parent / "outside" / name
    (model / "tokenizer.json").rename(target)
    return str(target)


@attack()
def tokenizer_file_elsewhere(model: Path) -> None:
    tokenizer(model, tokenizer_file=secret_tokenizer(model))


@attack()
def tokenizer_file_elsewhere_by_special_tokens(model: Path) -> None:
    values = {"tokenizer_file": secret_tokenizer(model)}
    (model / "special_tokens_map.json").write_text(json.dumps(values))
    tokenizer(model, added_tokens_decoder=...)


@attack()
def tokenizer_of_another_release_elsewhere(model: Path) -> None:
    secret_tokenizer(model, "tokenizer.1.0.0.json")
    tokenizer(model, fast_tokenizer_files=["../outside/tokenizer.1.0.0.json"])


@attack()
def vocabulary_elsewhere(model: Path) -> None:
    secret_tokenizer(model)
    secret = model.parent / "outside" / "secret.txt"
    secret.write_text("a\nb\n")
    tokenizer(model, vocab_file=str(secret), merges_file=str(secret), tokenizer_class="GPT2Tokenizer")


@attack()
def gguf_vocabulary_elsewhere(model: Path) -> None:
    secret_tokenizer(model)
    secret = model.parent / "outside" / "secret.gguf"
    secret.write_bytes(b"GGUF" * 100)
    tokenizer(model, gguf_file=str(secret))


@attack()
def sentencepiece_model_elsewhere(model: Path) -> None:
    import sentencepiece

    secret_tokenizer(model)
    stem = model.parent / "outside" / "secret"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the quick brown fox jumps over the lazy dog"] * 9),
        model_prefix=str(stem),
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (model / "tokenizer.model").write_bytes(b"not a sentencepiece model")
    tokenizer(
        model,
        tokenizer_class="SpeechT5Tokenizer",
        vocab_file=f"{stem}.model",
        sp_model_kwargs={"model_file": f"{stem}.model"},
    )


@attack()
def sentencepiece_model_of_noise(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.model").write_bytes(bytes(range(256)) * 4000)


@attack()
def tokenizer_that_is_no_json(model: Path) -> None:
    (model / "tokenizer.json").write_text('{"version": ')


@attack()
def tokenizer_of_70_megabytes(model: Path) -> None:
    insert(model / "tokenizer.json", f'"x": "{"x" * (70 << 20)}"')


@attack()
def tokenizer_of_60_megabytes_of_lists(model: Path) -> None:
    insert(model / "tokenizer.json", f'"x": [{"[]," * (20 << 20)}[]]')


@attack()
def tokenizer_of_nearly_too_many_lists(model: Path) -> None:
    insert(model / "tokenizer.json", f'"x": [{"[]," * 1_900_000}[]]')


@attack("units")
def merges_of_60_megabytes(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "vocab.json").write_text('{"a": 0, "b": 1}')
    (model / "merges.txt").write_text("a b\n" * (15 << 20))
    tokenizer(model, tokenizer_class="GPT2Tokenizer")


@attack("units")
def sentencepiece_model_of_empty_pieces(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.model").write_bytes(b"\n\0" * (16 << 20))


@attack()
def tokenizer_nested_deeply(model: Path) -> None:
    insert(model / "tokenizer.json", f'"x": {"[" * 100_000}{"]" * 100_000}')


@attack()
def tokenizer_config_of_70_megabytes(model: Path) -> None:
    tokenizer(model, chat_template="x" * (70 << 20))


@attack()
def chat_template_of_100_megabytes(model: Path) -> None:
    (model / "chat_template.jinja").write_bytes(b"{# #}" * (20 << 20))


def replace_normalizer(model: Path, normalizers: list[dict[str, Any]]) -> None:
    """Normalizers that already run while the tokenizer loads, on an added token that asks for it."""
    values = read(model / "tokenizer.json")
    values["normalizer"] = {"type": "Sequence", "normalizers": normalizers}
    added = values["added_tokens"][0] | {"id": 500, "content": "a" * 60 + "c", "normalized": True, "special": False}
    values["added_tokens"].append(added)
    (model / "tokenizer.json").write_text(json.dumps(values))


def substitution(pattern: str, content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": {"Regex": pattern}, "content": content}


def charsmap(content: bytes) -> dict[str, Any]:
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(content).decode()}


NORMALIZERS = {
    "regex_of_exponential_time": [substitution("(a+)+$|(a|a)*c", "b")],
    "regex_of_polynomial_time": [substitution("a*a*a*a*a*a*a*a*a*a*a*b|c", "b")],
    "regex_without_end": [substitution("(?:" * 5000 + "a" + ")*" * 5000, "b")],
    "regex_with_a_disguise": [substitution("(?x)#[\n(a+)+c#]", "b")],
    "text_that_doubles": [substitution("a", "aa")] * 40,
    "normalizer_of_noise": [charsmap(b"\xff" * 3000)],
    "normalizer_that_panics": [charsmap(struct.pack("<II", 4, 0x7FFFFF00) + b"abc")],
}
for _name, _normalizers in NORMALIZERS.items():
    add(_name, lambda model, normalizers=_normalizers: replace_normalizer(model, normalizers), "units")


@attack("units")
def regex_of_exponential_time_between_words(model: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a|a)*b"}, "behavior": "Isolated", "invert": False}
    edit(model / "tokenizer.json", pre_tokenizer=split)


@attack("units", refused=False)
def padding_without_end(model: Path) -> None:
    padding = {
        "strategy": {"Fixed": 2**40},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<unk>",
    }
    edit(model / "tokenizer.json", padding=padding)


@attack()
def a_million_added_tokens(model: Path) -> None:
    token = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}
    tokenizer(model, added_tokens_decoder={str(i): {"content": f"<{i}>", **token} for i in range(300_000)})


@attack()
def a_billion_extra_tokens(model: Path) -> None:
    tokenizer(model, tokenizer_class="T5Tokenizer", extra_ids=10**9)


@attack()
def a_billion_reserved_tokens(model: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tiktoken.model").write_text("YQ== 0\nYg== 1\n")
    tokenizer(model, added_tokens_decoder={"1000000000": {"content": "<x>"}})


@attack("llm", refused=False)
def code_for_the_processor(model: Path) -> None:
    plant_module(model)
    values = {"processor_class": "evil.Processor", "auto_map": AUTO_MAP}
    (model / "processor_config.json").write_text(json.dumps(values))


@attack("encoder", refused=False)
def code_for_the_processor_of_an_encoder(model: Path) -> None:
    code_for_the_processor(model)


@attack("encoder")
def processor_config_of_another_type(model: Path) -> None:
    (model / "preprocessor_config.json").write_text('{"feature_extractor": [1]}')


@attack("encoder")
def preprocessor_config_of_70_megabytes(model: Path) -> None:
    (model / "preprocessor_config.json").write_text(f'{{"x": "{"x" * (70 << 20)}"}}')
