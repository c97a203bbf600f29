"""The bytes that each token of a tokenizer writes, which for byte-level BPE may be part of a character."""

import json
import re

from kikitori.text.units import WORD_MARK, TokenizerUnits

_BYTE = re.compile("<0x([0-9A-F]{2})>")
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")


def token_bytes(units: TokenizerUnits) -> list[bytes | None]:
    """The bytes of each token, in the order of the labels; a space for a word mark, None for special tokens.

    Whisper's timestamps write nothing.
    """
    tokenizer = units.tokenizer
    tokens = tokenizer.convert_ids_to_tokens(list(range(units.size)))
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    # Those that transformers runs in Python, such as Speech2Text's, write SentencePiece's pieces.
    decoder = json.loads(tokenizer.backend_tokenizer.to_str()).get("decoder") or {} if tokenizer.is_fast else {}
    levels = [decoder, *decoder.get("decoders", [])]
    alphabet = _byte_alphabet() if any(each.get("type") == "ByteLevel" for each in levels) else None
    found: list[bytes | None] = []
    for label, token in enumerate(tokens):
        if token is None or label in special:
            found.append(b"" if token is not None and _TIMESTAMP.fullmatch(token) else None)
        elif alphabet is not None:
            found.append(bytes(alphabet[character] for character in token if character in alphabet))
        elif byte := _BYTE.fullmatch(token):
            found.append(bytes([int(byte[1], 16)]))
        else:
            found.append(token.replace(WORD_MARK, " ").encode())
    return found


def _byte_alphabet() -> dict[str, int]:
    """The byte that each character of byte-level BPE stands for: printable Latin-1 for itself, the rest from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(0x100 + place): byte for place, byte in enumerate(others)}
