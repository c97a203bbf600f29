"""The bytes that each token of a tokenizer writes, which for byte-level BPE may be part of a character."""

import json
import re
from typing import Any

from kikitori.text.units import WORD_MARK, TokenizerUnits

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")


class TokenBytes:
    """The bytes that each token of some units writes; a search meets few of them."""

    def __init__(self, units: TokenizerUnits) -> None:
        self._tokenizer, self._size = units.tokenizer, units.size
        self._special = {*self._tokenizer.all_special_ids, *self._tokenizer.added_tokens_decoder}
        # Those that transformers runs in Python, such as Speech2Text's, write SentencePiece's pieces.
        part = self._tokenizer.backend_tokenizer.decoder if self._tokenizer.is_fast else None
        decoder = {} if part is None else json.loads(part.__getstate__())
        levels = [decoder, *decoder.get("decoders", [])]
        self._alphabet = _byte_alphabet() if any(each.get("type") == "ByteLevel" for each in levels) else None

    def of(self, label: int) -> bytes | None:
        """The bytes of a token, with a space for a word mark; None of special tokens and those that there are not.

        Whisper's timestamps write nothing.
        """
        # A model may have labels that its tokenizer has not: published folders of Whisper lack the timestamps.
        token: Any = self._tokenizer.convert_ids_to_tokens(label) if label < self._size else None
        if token is None or label in self._special:
            return b"" if token is not None and _TIMESTAMP.fullmatch(token) else None
        if self._alphabet is not None:
            return bytes(self._alphabet[character] for character in token if character in self._alphabet)
        if byte := _BYTE.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return str(token).replace(WORD_MARK, " ").encode()


def token_bytes(units: TokenizerUnits) -> list[bytes | None]:
    """Those of all tokens, in the order of the labels."""
    tokens = TokenBytes(units)
    return [tokens.of(label) for label in range(units.size)]


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of byte-level BPE stands for: printable Latin-1 for itself, the rest from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
