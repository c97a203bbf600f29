"""SentencePiece models as label units: `spiece.model` becomes a fast tokenizer that encodes as the library does.

Unigram models only, with or without byte fallback. Where the `tokenizers` library reads the same numbers in another
way, the tokenizer makes up for it; `tests/text/test_spiece.py` compares the two on odd strings. What is left: a
combining mark behind a composed character, a ligature or another mark is composed as Unicode has it, and case folding
reaches user-defined pieces too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kikitori.errors import ModelError
from kikitori.text.units import WORD_MARK, TokenizerUnits

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.normalizers import Normalizer
    from tokenizers.pre_tokenizers import PreTokenizer

MAX_BYTES = 64 * 2**20  # a model of 256k pieces has about 5 MB
UNIGRAM = 1  # TrainerSpec.ModelType
NORMAL, USER_DEFINED = 1, 4  # ModelProto.SentencePiece.Type
NFKC_RULES = ("nmt_nfkc", "nfkc", "nmt_nfkc_cf", "nfkc_cf")
SPECIAL_TOKENS = ("unk_token", "bos_token", "eos_token", "pad_token", "cls_token", "sep_token", "mask_token")
APART = "\U0010fffe"  # no character, in no text, and in no normalizer's table


def read_tokenizer(file: Path) -> "Tokenizer":
    """The tokenizer in a SentencePiece model (`spiece.model`) or a `tokenizer.json`.

    Raises:
        ModelError: The file is damaged, or a SentencePiece model of another kind.
    """
    from tokenizers import Tokenizer

    if file.stat().st_size > MAX_BYTES:
        raise ModelError(f"is larger than {MAX_BYTES >> 20} MB", where=file, remedy="copy the file again")
    try:
        return Tokenizer.from_file(str(file)) if file.suffix == ".json" else _from_proto(_read(file))
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001  (the tokenizers library and protobuf raise plain Exception)
        reason = (str(error).strip() or type(error).__name__).partition("\n")[0]
        raise ModelError(f"is no tokenizer ({reason})", where=file, remedy="copy the file again") from None


def named_units(tokenizer: "Tokenizer", settings: Mapping[str, Any]) -> TokenizerUnits:
    """Label units over a tokenizer whose special tokens `tokenizer_config.json` names; names not in the vocabulary go.

    Raises:
        ModelError: No end-of-sentence token is named.
    """
    from transformers import PreTrainedTokenizerFast

    vocabulary = tokenizer.get_vocab()
    special = {name: token for name in SPECIAL_TOKENS if (token := _content(settings.get(name))) in vocabulary}
    additional = settings.get("additional_special_tokens")
    more = [token for token in map(_content, additional if isinstance(additional, list) else []) if token in vocabulary]
    return TokenizerUnits(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            **special,
            additional_special_tokens=more,
            clean_up_tokenization_spaces=False,
        )
    )


def _read(file: Path) -> Any:
    """The model's protocol buffer, of a kind that we can rebuild."""
    from sentencepiece import sentencepiece_model_pb2

    described: Any = sentencepiece_model_pb2  # which makes its classes when it is imported
    proto = described.ModelProto.FromString(file.read_bytes())
    trainer, normalizer = proto.trainer_spec, proto.normalizer_spec
    if trainer.model_type != UNIGRAM or trainer.treat_whitespace_as_suffix or not normalizer.escape_whitespaces:
        raise ModelError(
            "is no unigram model with its spaces before the words",
            where=file,
            remedy="add a tokenizer.json, which is taken as it is",
        )
    return proto


def _from_proto(proto: Any) -> "Tokenizer":
    from tokenizers import Tokenizer, decoders, models

    prefix = proto.normalizer_spec.add_dummy_prefix
    tokenizer = Tokenizer(
        models.Unigram(
            _vocabulary(proto), unk_id=proto.trainer_spec.unk_id, byte_fallback=proto.trainer_spec.byte_fallback
        )
    )
    tokenizer.normalizer = _normalizer(proto.normalizer_spec)
    tokenizer.pre_tokenizer = _pre_tokenizer(proto)
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(WORD_MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            *([decoders.Strip(" ", 1, 0)] if prefix else []),
        ]
    )
    return tokenizer


def _vocabulary(proto: Any) -> list[tuple[str, float]]:
    """Pieces with scores. SentencePiece gives user-defined pieces a score when it segments, not in the file."""
    best = max((piece.score for piece in proto.pieces if piece.type == NORMAL), default=0.0)
    return [
        (
            piece.piece,
            best * len(piece.piece.encode()) - 0.1 if piece.type == USER_DEFINED else piece.score,
        )
        for piece in proto.pieces
    ]


def _normalizer(spec: Any) -> "Normalizer":
    from tokenizers import Regex, normalizers

    prefix = [normalizers.Prepend(" ")] if spec.add_dummy_prefix else []
    table = _table(spec) if spec.precompiled_charsmap else []
    if not spec.remove_extra_whitespaces:
        return normalizers.Sequence([*prefix, *table])
    squeeze = [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    return normalizers.Sequence([*table, *squeeze, *prefix])


def _table(spec: Any) -> "list[Normalizer]":
    """The table of characters and what they become."""
    from tokenizers import Regex, normalizers

    table = normalizers.Precompiled(spec.precompiled_charsmap)
    if spec.name not in NFKC_RULES:
        return [table]
    # Precompiled looks up a whole grapheme by its beginning: of ℂ and an accent only C would be left. So it gets single
    # characters; then NFC does what the table does to sequences of them (ｶ and ﾞ to ガ). Never before the first
    # character: the tokenizers library would lose count and panic.
    apart = normalizers.Replace(Regex(r"(?<=.)(?=[^\x{0}-\x{7f}])|(?<=\r)(?=\n)"), APART)
    return [apart, table, normalizers.Replace(APART, ""), normalizers.NFC()]


def _pre_tokenizer(proto: Any) -> "PreTokenizer":
    """Marks the spaces, and cuts text that spells a reserved piece, such as `<s>` or `<0x41>`, lest it become one."""
    from tokenizers import Regex, pre_tokenizers

    marks = pre_tokenizers.Metaspace(replacement=WORD_MARK, prepend_scheme="never", split=False)
    reserved = [p.piece for p in proto.pieces if p.type not in (NORMAL, USER_DEFINED) and len(p.piece) > 1]
    if not reserved:
        return marks
    cuts = "|".join(f"{re.escape(piece[0])}(?={re.escape(piece[1:])})" for piece in reserved)
    return pre_tokenizers.Sequence([marks, pre_tokenizers.Split(Regex(cuts), "merged_with_previous")])


def _content(token: object) -> str | None:
    """A special token, also in the long form of old releases."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
