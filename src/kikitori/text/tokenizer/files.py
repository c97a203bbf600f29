"""What may be read of a tokenizer: the folder's own files, known classes, and rules that neither grow nor backtrack.

The entries of `tokenizer_config.json` reach constructors of transformers as they are, file names included, and
`tokenizer.json` already applies its normalizer while it loads.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

from kikitori.errors import ModelError
from kikitori.io.untrusted import check_files, read_object
from kikitori.text.tokenizer.fast import PLAIN, WHISPER

MAX_ADDED_TOKENS = 10_000  # Gemma has 6,400; the time to load them grows with the square
MAX_LINES = MAX_NUMBER = 2**20
MAX_RULES = 100  # for text, in tokenizer.json
MAX_GROWTH = 1_000  # of a text by all substitutions together
PATH = re.compile(r"(^|_)(file|files|path|dir)$")
# Written by transformers for years, with paths of the author's machine, and not opened.
UNUSED_PATHS = {"name_or_path", "_name_or_path", "tokenizer_file", "special_tokens_map_file"}
CONTENTS = {"vocab", "merges", "init_inputs", "tokenizer_object"}  # texts in their place are opened as files
CLASS_NAME = re.compile(r"[A-Za-z0-9_]*Tokenizer(Fast)?|TokenizersBackend|PythonBackend")
PATTERN_PART = re.compile(r"\\.|\{\d*,\d*\}|.", re.DOTALL)
UNREADABLE_PATTERN = re.compile(r"\(\?#|\(\?[a-z]*x|\\[gk1-9]")  # comments, calls and references


def check_tokenizer(folder: Path) -> None:
    """Refuses tokenizer files that lead elsewhere, name a class that is no tokenizer, or would take too long.

    Raises:
        ModelError: With the file and the entry.
    """
    try:
        check_files(folder)
        _check_all(folder)
    except ModelError as error:
        raise ModelError(f"cannot load the tokenizer ({error.what})", where=folder, remedy=error.remedy) from None


def _check_all(folder: Path) -> None:
    settings = _read(folder, "tokenizer_config.json")
    _check_entries(folder, "tokenizer_config.json", {k: v for k, v in settings.items() if k not in UNUSED_PATHS})
    _check_entries(folder, "special_tokens_map.json", _read(folder, "special_tokens_map.json"))
    for name in (settings.get("tokenizer_class"), _read(folder, "config.json").get("tokenizer_class")):
        if name is not None:
            _check_class(folder, name)
    _read(folder, "vocab.json", vocabulary=True)
    for file in (folder / "vocab.txt", folder / "merges.txt", *folder.glob("*.model")):
        _check_lines(file)
    tokenizer = _read(folder, "tokenizer.json", vocabulary=True)
    _check_rules(folder, [tokenizer.get(name) for name in ("normalizer", "pre_tokenizer", "post_processor", "decoder")])
    for tokens in (tokenizer.get("added_tokens"), _read(folder, "added_tokens.json")):
        _check_added(folder, tokens)
    _check_added(folder, settings.get("added_tokens_decoder"))


def _read(folder: Path, name: str, *, vocabulary: bool = False) -> dict[str, Any]:
    return read_object(folder / name, vocabulary=vocabulary) if (folder / name).exists() else {}


def _check_lines(file: Path) -> None:
    # In a SentencePiece model, the same byte begins each piece.
    if file.is_file() and file.read_bytes().count(b"\n") > MAX_LINES:
        raise ModelError(f"{file.name} holds too many entries", where=file.parent, remedy="copy the folder again")


def _check_entries(folder: Path, name: str, entries: dict[str, Any]) -> None:
    for key, value in entries.items():
        if what := _objection(key, value):
            raise ModelError(f"{name} {what} ({key}: {str(value)[:80]})", where=folder, remedy="remove the entry")


def _objection(key: str, value: Any) -> str | None:
    if (PATH.search(key) or key in CONTENTS) and value:
        return "leads to other files"
    if key.endswith("_kwargs") and any(isinstance(part, str) for part in _leaves(value)):
        return "leads to other files or programs"
    if "length" not in key and any(isinstance(part, int) and abs(part) > MAX_NUMBER for part in _leaves(value)):
        return f"has a number above {MAX_NUMBER}"
    return None


def _leaves(value: Any) -> Iterator[Any]:
    """What is no mapping and no list."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _leaves(part)
    else:
        yield value


def _check_class(folder: Path, name: object) -> None:
    if name in (PLAIN, *WHISPER):
        return
    from transformers import PreTrainedTokenizerBase
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    if isinstance(name, str) and CLASS_NAME.fullmatch(name):
        found = tokenizer_class_from_name(name)
        if found is None or (isinstance(found, type) and issubclass(found, PreTrainedTokenizerBase)):
            return  # transformers takes its general class for names that it does not know
    raise ModelError(f"tokenizer_class {str(name)[:80]!r} is no tokenizer", where=folder, remedy="remove the entry")


def _check_added(folder: Path, tokens: Any) -> None:
    if not isinstance(tokens, dict | list):
        return
    if len(tokens) > MAX_ADDED_TOKENS:
        raise ModelError(
            f"the tokenizer has {len(tokens)} added tokens", where=folder, remedy="put them into its vocabulary"
        )
    numbers = [key for key in tokens if isinstance(key, str) and key.isdecimal()]
    if any(len(number) > len(str(MAX_NUMBER)) for number in numbers):
        raise ModelError("an added token has an absurd number", where=folder, remedy="copy the tokenizer again")


def _check_rules(folder: Path, parts: list[Any]) -> None:
    rules = list(_mappings(parts))
    growth = prod(max(1, len(str(rule.get("content")))) for rule in rules if rule.get("type") == "Replace")
    if growth > MAX_GROWTH or len(rules) > MAX_RULES:
        raise ModelError("tokenizer.json makes texts explode", where=folder, remedy="copy the tokenizer again")
    for charsmap in (rule["precompiled_charsmap"] for rule in rules if rule.get("precompiled_charsmap")):
        _check_charsmap(folder, charsmap)
    for pattern in (rule["Regex"] for rule in rules if "Regex" in rule):
        if not isinstance(pattern, str) or _may_explode(pattern):
            raise ModelError(
                f"tokenizer.json has a pattern that may take exponential time ({str(pattern)[:80]})",
                where=folder,
                remedy="use one without repeats inside of repeats",
            )


def _check_charsmap(folder: Path, charsmap: Any) -> None:
    """The library allocates whatever size the first four bytes name."""
    try:
        content = b64decode(charsmap)
    except (TypeError, ValueError):
        content = b""
    if len(content) < 4 or int.from_bytes(content[:4], "little") > len(content):
        raise ModelError("tokenizer.json has a damaged charsmap", where=folder, remedy="copy the tokenizer again")


def _mappings(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _mappings(part)


def _may_explode(pattern: str) -> bool:
    """Whether a repeated group holds repeats or alternatives, by which a search can take exponential time."""
    if UNREADABLE_PATTERN.search(pattern):
        return True
    groups = [False]  # whether each open group holds repeats or alternatives
    closed = False  # the same of the group that has just ended
    classes = 0
    for part in PATTERN_PART.findall(pattern):
        if part in "[]" or classes:
            classes += {"[": 1, "]": -min(classes, 1)}.get(part, 0)
            closed = False
        elif part == "(":
            groups.append(False)
            closed = False
        elif part == ")" and len(groups) > 1:
            closed = groups.pop()
            groups[-1] |= closed
        else:
            repeats = part in "*+" or (part[0] == "{" and len(part) > 1)
            if repeats and closed:
                return True
            groups[-1] |= repeats or part == "|"
            closed = False
    return classes > 0
