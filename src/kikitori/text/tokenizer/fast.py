"""Tokenizers whose `tokenizer.json` says all, by the tokenizers library alone.

transformers builds the same around the same library, and takes two seconds to import.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import AddedToken, Tokenizer

from kikitori.io.untrusted import read_object

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PLAIN = "TokenizersBackend"
"""What transformers calls a tokenizer that is nothing but its tokenizer.json, such as those made here."""
WHISPER = ("WhisperTokenizer", "WhisperTokenizerFast")
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")
SILENT = {
    *("tokenizer_class", "processor_class", "backend", "is_local", "local_files_only", "model_max_length"),
    "clean_up_tokenization_spaces",  # where it is false
}
"""Entries of tokenizer_config.json that change no label and no text."""
OTHER_FILES = ("special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json")
MOST_LABELS = 100_000
"""transformers mends the rules of some larger tokenizers."""
_TIMESTAMP = re.compile(r"<\|\d+\.\d+\|>")


class FastTokenizer:
    """A tokenizer of the tokenizers library, with what is used here of the interface that transformers gives it.

    Args:
        backend: The tokenizer.
        named: The special tokens by their names in transformers, such as `eos_token`.
        settings: Other entries of tokenizer_config.json, which change no label and no text.
        folder: Where it lies.
    """

    is_fast = True
    clean_up_tokenization_spaces = False

    def __init__(self, backend: Tokenizer, named: Mapping[str, str], settings: Mapping[str, Any], folder: Path) -> None:
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = True
        self.backend_tokenizer, self.special_tokens_map = backend, dict(named)
        self.name_or_path, self.init_kwargs = str(folder), dict(settings)
        self._is_whisper = settings.get("tokenizer_class") in WHISPER

    def __len__(self) -> int:
        """How many labels there are, added ones included."""
        return self.backend_tokenizer.get_vocab_size()

    @property
    def bos_token_id(self) -> int | None:
        """The label that begins texts."""
        return self._id("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The label that ends texts."""
        return self._id("eos_token")

    @property
    def unk_token_id(self) -> int | None:
        """The label of what has no other."""
        return self._id("unk_token")

    @cached_property
    def all_special_tokens(self) -> list[str]:
        """The named tokens, each once."""
        return [*dict.fromkeys(self.special_tokens_map.values())]

    @cached_property
    def all_special_ids(self) -> list[int]:
        """Their labels."""
        found = map(self.backend_tokenizer.token_to_id, self.all_special_tokens)
        return [label for label in found if label is not None]

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens beside the vocabulary, by their labels."""
        return self.backend_tokenizer.get_added_tokens_decoder()

    def get_vocab(self) -> dict[str, int]:
        """All labels by their names."""
        return self.backend_tokenizer.get_vocab()

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool,
        split_special_tokens: bool,
        return_offsets_mapping: bool = False,
        verbose: bool = False,  # noqa: ARG002
    ) -> dict[str, Any]:
        """Labels of a text or of several, `input_ids`, and where they stand, `offset_mapping`."""
        texts = [text] if isinstance(text, str) else [*text]
        found = self._encodings(texts, add_special_tokens, split_special_tokens)
        values: dict[str, list[Any]] = {"input_ids": [each.ids for each in found]}
        if return_offsets_mapping:
            values["offset_mapping"] = [each.offsets for each in found]
        return {key: each[0] for key, each in values.items()} if isinstance(text, str) else values

    def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
        """Labels of a text."""
        (found,) = self._encodings([text], add_special_tokens, split_special_tokens)
        return list(found.ids)

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """The text of labels."""
        labels = [*token_ids]
        if self._is_whisper and skip_special_tokens:
            labels = self._without_previous(labels)
        text: str = self.backend_tokenizer.decode(labels, skip_special_tokens=skip_special_tokens)
        return _TIMESTAMP.sub("", text) if self._is_whisper else text

    def convert_ids_to_tokens(self, ids: int | Iterable[int], *, skip_special_tokens: bool = False) -> Any:
        """The name of a label, or the names of several, of those that are no special tokens."""
        name_of = self.backend_tokenizer.id_to_token
        if isinstance(ids, int):
            return name_of(ids)
        left_out = {*self.all_special_ids} if skip_special_tokens else set()
        return [name_of(label) for label in map(int, ids) if label not in left_out]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The text of labels by their names."""
        decoder = self.backend_tokenizer.decoder
        return " ".join(tokens) if decoder is None else str(decoder.decode([*tokens]))

    def pretrained(self) -> "PreTrainedTokenizerBase":
        """The same tokenizer in the form of transformers."""
        from transformers import PreTrainedTokenizerFast, WhisperTokenizer

        kind: Any = WhisperTokenizer if self._is_whisper else PreTrainedTokenizerFast
        values = {key: value for key, value in self.init_kwargs.items() if key != "tokenizer_class"}
        made: PreTrainedTokenizerBase = kind(
            tokenizer_object=self.backend_tokenizer, name_or_path=self.name_or_path, **self.special_tokens_map, **values
        )
        return made

    def _without_previous(self, labels: list[int]) -> list[int]:
        """Labels without a prompt, which transformers leaves out of Whisper's texts."""
        previous, start = map(self.backend_tokenizer.token_to_id, ("<|startofprev|>", "<|startoftranscript|>"))
        if not labels or labels[0] != previous:
            return labels
        return labels[labels.index(start) :] if start in labels else []

    def _id(self, name: str) -> int | None:
        token = self.special_tokens_map.get(name)
        return None if token is None else self.backend_tokenizer.token_to_id(token)

    def _encodings(self, texts: list[str], add_special_tokens: bool, split_special_tokens: bool) -> list[Any]:
        if self.backend_tokenizer.encode_special_tokens != split_special_tokens:
            self.backend_tokenizer.encode_special_tokens = split_special_tokens
        return self.backend_tokenizer.encode_batch(texts, add_special_tokens=add_special_tokens)


def load_fast(folder: Path) -> FastTokenizer | None:
    """The tokenizer of a folder, once it is checked (`files`); None where transformers would add something to it."""
    settings = folder / "tokenizer_config.json"
    if not settings.is_file() or not (folder / "tokenizer.json").is_file() or _has_other_files(folder):
        return None
    values = read_object(settings)
    named = {name: values.pop(name) for name in NAMED if values.get(name) is not None}
    silent = {name: values.pop(name) for name in SILENT & values.keys()}
    kind, cleans = silent.get("tokenizer_class"), silent.get("clean_up_tokenization_spaces", False)
    if kind not in (PLAIN, *WHISPER) or values or cleans or not all(isinstance(each, str) for each in named.values()):
        return None
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokens = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    if backend.get_vocab_size() > MOST_LABELS or not all(_is_special(tokens.get(each)) for each in named.values()):
        return None
    if kind in WHISPER and not _is_whisper(backend):
        return None
    return FastTokenizer(backend, named, silent, folder)


def _has_other_files(folder: Path) -> bool:
    return any((folder / name).exists() for name in OTHER_FILES)


def _is_special(token: AddedToken | None) -> bool:
    """Whether a token is there as transformers would add it."""
    if token is None or not token.special:
        return False
    return not (token.normalized or token.lstrip or token.rstrip or token.single_word)


def _is_whisper(backend: Tokenizer) -> bool:
    """Whether a tokenizer has the rules that transformers gives Whisper's, whatever its file says."""
    from tokenizers.decoders import ByteLevel as Decoder
    from tokenizers.pre_tokenizers import ByteLevel

    before = backend.pre_tokenizer
    bytewise = isinstance(before, ByteLevel) and isinstance(backend.decoder, Decoder)
    return backend.normalizer is None and bytewise and not before.add_prefix_space
