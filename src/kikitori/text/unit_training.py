"""New label units from text: characters, or SentencePiece pieces."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

from kikitori.errors import DataError
from kikitori.text.forms.text_form import TextForm, text_normalizer
from kikitori.text.units import BOS, EOS, SPECIALS, UNK, WORD_MARK, TokenizerUnits

if TYPE_CHECKING:
    from tokenizers.normalizers import Normalizer


def character_units(texts: Iterable[str], text_form: TextForm) -> TokenizerUnits:
    """One label per character that occurs in `texts`, with the word mark for spaces.

    Raises:
        DataError: The texts hold no character.
    """
    normalizer = text_normalizer(text_form)
    characters = sorted({c for text in texts for c in normalizer.normalize_str(text)} - {" ", WORD_MARK})
    if not characters:
        raise DataError("no text to take characters from", remedy="check the recipe's data and units.text_form")
    # Equal scores and single-character pieces leave exactly one segmentation.
    pieces = [(token, 0.0) for token in (*SPECIALS, WORD_MARK, *characters)]
    return unigram_units(pieces, normalizer)


def sentencepiece_units(texts: Iterable[str], size: int, text_form: TextForm) -> TokenizerUnits:
    """A SentencePiece unigram model (Kudo 2018) of `size` pieces trained on `texts`.

    Raises:
        DataError: There is too little text for so many pieces.
    """
    import sentencepiece

    normalizer = text_normalizer(text_form)
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=filter(None, map(normalizer.normalize_str, texts)),
            model_writer=model,
            vocab_size=size,
            model_type="unigram",
            character_coverage=1.0,
            normalization_rule_name="identity",
            input_sentence_size=1_000_000,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            minloglevel=2,
            num_threads=1,  # the result is then the same on every machine
        )
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise DataError(
            f"SentencePiece could not train {size} pieces ({reason})", remedy="ask for fewer units"
        ) from None
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.get_piece_size())]
    return unigram_units(pieces, normalizer)


def unigram_units(pieces: list[tuple[str, float]], normalizer: "Normalizer") -> TokenizerUnits:
    """Units of a unigram model: pieces with their log-probabilities, the special labels first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0, byte_fallback=False))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=WORD_MARK, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=WORD_MARK, prepend_scheme="always")
    return TokenizerUnits(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            unk_token=UNK,
            bos_token=BOS,
            eos_token=EOS,
            clean_up_tokenization_spaces=False,
        )
    )
