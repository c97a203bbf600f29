"""What a folder says of a recogniser's transcripts: the labels before them, and those that are never written."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kikitori.errors import ModelError
from kikitori.model.decoder.encoder_decoder.rules import LANGUAGE, TranscriptRules
from kikitori.model.published.generation import Source

ENGLISH = "en"
PREVIOUS = "prev_sot_token_id"
"""Of `generation_config.json`: the label before previous text; many folders leave it to the tokenizer."""
CANARY_PROMPT = (
    *("<|startofcontext|>", "<|startoftranscript|>", "<|emo:undefined|>", LANGUAGE, LANGUAGE),
    *("<|pnc|>", "<|noitn|>", "<|notimestamp|>", "<|nodiarize|>"),
)
"""No text before, no emotion known; the language spoken and that to write; punctuation, words for numbers, no times."""
COHERE_PROMPT = ("▁", *CANARY_PROMPT)
CANARY_LANGUAGES = (
    *("bg", "hr", "cs", "da", "nl", "en", "et", "fi", "fr", "de", "el", "hu", "it"),
    *("lv", "lt", "mt", "pl", "pt", "ro", "sk", "sl", "es", "sv", "ru", "uk"),
)
COHERE_LANGUAGES = ("ar", "de", "el", "en", "es", "fr", "it", "ja", "ko", "nl", "pl", "pt", "vi", "zh")
"""What they were trained on, by the model cards; their tokenizers name many more."""


def whisper_rules(source: Source) -> tuple[TranscriptRules, str | None]:
    """The rules of a Whisper, and the code of its language; None if it finds that out.

    A language in `generation_config.json` holds where none is asked for. Where it names no heads that follow the
    speech, all of the upper half of the layers do, as in OpenAI's code.

    Raises:
        ModelError: An entry is missing, or is no label or head of the decoder; or the model does not know the language.
    """
    values = {PREVIOUS: source.units.special_id("<|startofprev|>"), **source.values}
    entries = replace(source, values=values).entries
    multilingual = bool(values.get("is_multilingual", "lang_to_id" in values))
    start, last = entries.label("decoder_start_token_id"), entries.label("no_timestamps_token_id")
    eos = entries.label("eos_token_id")
    languages = entries.by_name("lang_to_id") if multilingual else {}
    task = entries.checked("task_to_id", entries.by_name("task_to_id").get("transcribe")) if multilingual else 0
    rules = TranscriptRules(
        prompt=(start, LANGUAGE, task, last) if multilingual else (start, last),
        eos=eos,
        positions=int(source.config.max_target_positions),
        languages=languages,
        suppressed=entries.labels("suppress_tokens"),
        suppressed_first=entries.labels("begin_suppress_tokens"),
        alignment_heads=_alignment_heads(source),
        previous=None if values.get(PREVIOUS) is None else entries.label(PREVIOUS),
    )
    asked = source.language or values.get("language")
    code = None if asked is None else language_code(source.where, [*languages] or [ENGLISH], asked)
    return rules, code if languages else ENGLISH


def untold_rules(source: Source) -> tuple[TranscriptRules, None]:
    """The rules of a decoder that begins with one label and is told no language, such as Moonshine's.

    Raises:
        ModelError: An entry is missing, or is no label of the decoder; or a language is asked for.
    """
    if source.language is not None:
        raise ModelError("the model is told no language", where=source.where, remedy="leave --language out")
    return _rules(source, (source.entries.label("decoder_start_token_id"),), {}), None


def speech_to_text_rules(source: Source) -> tuple[TranscriptRules, str | None]:
    """The rules of a Speech2Text: the language of the text is told to models with several, which translate.

    Raises:
        ModelError: As of `told_rules` for these, of `untold_rules` for others.
    """
    pieces = source.units.tokenizer.get_vocab()
    languages = {piece.removeprefix("<lang:").rstrip(">"): piece for piece in pieces if piece.startswith("<lang:")}
    if not languages:
        return untold_rules(source)
    code = _asked(source, sorted(languages))
    labels = {each: pieces[piece] for each, piece in languages.items()}
    return _rules(source, (source.entries.label("decoder_start_token_id"), LANGUAGE), labels), code


def _asked(source: Source, known: Sequence[str]) -> str:
    """The code of the language that is asked for, or stands in `generation_config.json`."""
    asked = source.language or source.values.get("language")
    if asked is None:
        remedy = f"give --language, one of {', '.join(known)}"
        raise ModelError("the model must be told the language", where=source.where, remedy=remedy)
    return language_code(source.where, known, str(asked))


def told_rules(
    source: Source, prompt: Sequence[str | None], trained_on: Sequence[str]
) -> tuple[TranscriptRules, str | None]:
    """The rules of a decoder that must be told the language, such as Canary's, and the language's code.

    Where the first label of the prompt is not `decoder_start_token_id`, that stands before it, as in transformers.

    Args:
        source: The model.
        prompt: Tokens before a transcript, `LANGUAGE` where that of its language stands.
        trained_on: Codes of the languages that the model knows.

    Raises:
        ModelError: No language is asked for, or one that the model does not know; or it has no such token.
    """
    entries, code = source.entries, _asked(source, trained_on)
    languages = {each: label for each in trained_on if (label := source.units.special_id(f"<|{each}|>")) is not None}
    missing = [*(token for token in prompt if token is not LANGUAGE and source.units.special_id(token) is None)]
    if missing or code not in languages:
        what = f"the tokenizer has no '{missing[0] if missing else f'<|{code}|>'}'"
        raise ModelError(what, where=source.where, remedy="copy the tokenizer files that belong to the model")
    labels = tuple(LANGUAGE if token is LANGUAGE else source.units.special_id(token) for token in prompt)
    named = "bos_token_id" if source.values.get("decoder_start_token_id") is None else "decoder_start_token_id"
    start = entries.label(named)
    return _rules(source, labels if labels[0] == start else (start, *labels), languages), code


def canary_rules(source: Source) -> tuple[TranscriptRules, str | None]:
    """The rules of a Canary of the second generation (1b-v2); see `told_rules`."""
    return told_rules(source, CANARY_PROMPT, CANARY_LANGUAGES)


def cohere_rules(source: Source) -> tuple[TranscriptRules, str | None]:
    """The rules of Cohere's transcriber; see `told_rules`."""
    return told_rules(source, COHERE_PROMPT, COHERE_LANGUAGES)


def _rules(source: Source, prompt: tuple[int | None, ...], languages: Mapping[str, int]) -> TranscriptRules:
    """Rules with a prompt, the rest from `generation_config.json`; `max_length` there counts as in transformers."""
    entries, most = source.entries, source.values.get("max_length")
    positions = int(getattr(source.config, "max_target_positions", None) or source.config.max_position_embeddings)
    return TranscriptRules(
        prompt=prompt,
        eos=entries.label("eos_token_id"),
        positions=min(positions, most) if type(most) is int and most > len(prompt) else positions,
        languages=languages,
        suppressed=entries.labels("suppress_tokens"),
        suppressed_first=entries.labels("begin_suppress_tokens"),
    )


def language_code(path_or_id: str | Path, known: Sequence[str], language: str) -> str:
    """The code of a language that a model is asked for.

    Args:
        path_or_id: The model, for errors.
        known: Codes of the languages that it knows.
        language: A code, a name in English, or a label of Whisper.

    Raises:
        ModelError: It does not know the language.
    """
    name = language.lower().strip("<|>")
    code = name if name in known else _code_of(name)
    if code not in known:
        raise ModelError(
            f"the model does not know the language '{language}'",
            where=path_or_id,
            remedy=f"use one of {', '.join(known)}" if len(known) < 20 else "give its code, such as en or ja",
        )
    return code


def _alignment_heads(source: Source) -> tuple[tuple[int, int], ...]:
    name, config = "alignment_heads", source.config
    value, sizes = source.values.get(name) or [], (int(config.decoder_layers), int(config.decoder_attention_heads))
    for pair in value if isinstance(value, list) else [value]:
        fits = isinstance(pair, list) and len(pair) == 2 and all(type(number) is int for number in pair)
        if not fits or not all(0 <= number < size for number, size in zip(pair, sizes, strict=True)):
            raise ModelError(
                f"generation_config.json has no head of the decoder among its {name} but {str(pair)[:40]!r}",
                where=source.where,
                remedy="copy the file that belongs to the model",
            )
    layers, heads = sizes
    upper = [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]
    return tuple((layer, head) for layer, head in value or upper)


def _code_of(name: str) -> str:
    """The code of a language by its English name; what is no name stays as it is."""
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    return str(TO_LANGUAGE_CODE.get(name, name))
