"""`kikitori lexicon`: how the words of texts are pronounced."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import Split, SpokenTitles, TextForm, TextFormOption, make_folder, one_line_errors, read_rows
from kikitori.errors import ConfigError, counted
from kikitori.io.extras import require

if TYPE_CHECKING:
    from kikitori.text.g2p.sources import Built

SHOWN = 10
"""Words without a pronunciation that are named."""


def lexicon(
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", help="Text, or words one a line, plain, .gz, .xz; may be repeated."),
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Manifest, of whose transcripts all words count.")
    ] = None,
    split: Split = None,
    text_form: TextFormOption = TextForm.own,
    spoken_titles: SpokenTitles = False,
    min_count: Annotated[int, typer.Option("--min-count", min=1, help="Leave out rarer words of --text.")] = 1,
    most: Annotated[int | None, typer.Option("--most", min=1, help="Most words of --text, the commonest.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(
            "--source",
            help="Where pronunciations come from: a file in CMUdict's format, english (words formed of those in the "
            "files before), flite, espeak-ng:VOICE, kana, openjtalk; repeated, the first that knows a word says it.",
        ),
    ] = None,
    stress: Annotated[bool, typer.Option("--stress", help="Keep the marks of stress on phones.")] = False,
    notice: Annotated[
        list[Path] | None,
        typer.Option("--notice", help="Text for the head of the file, such as a dictionary's licence."),
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File, .tsv, .tsv.gz or .tsv.xz.")] = None,
) -> None:
    """Build a pronunciation lexicon: the words of texts and their phones."""
    with one_line_errors():
        if not text and not data:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        if not source:
            raise ConfigError("no source given", where="--source", remedy="name a dictionary or a program")
        if "openjtalk" in source:
            require("pyopenjtalk", "the source openjtalk needs", where="--source")
        if output is None or ".tsv" not in output.suffixes:
            raise ConfigError("no file for the lexicon", where="-o", remedy="name one, such as lexicon.tsv.xz")
        from itertools import chain

        from kikitori.text.corpus import common_words, read_lines, speak_titles
        from kikitori.text.forms.text_form import in_form
        from kikitori.text.g2p.sources import build_lexicon, open_sources
        from kikitori.text.lexicon import write_lexicon

        notes = [line for path in notice or () for line in (*read_lines(path), "")]
        lines = chain.from_iterable(read_lines(path) for path in text or ())
        spoken = map(speak_titles, lines) if spoken_titles else lines
        rows = read_rows(data, split)
        of_texts = common_words((in_form(line, text_form.value) for line in spoken), min_count=min_count, most=most)
        of_rows = common_words(in_form(row.text, text_form.value) for row in rows if row.text)
        words = list(dict.fromkeys((*of_texts, *of_rows)))
        make_folder(output.parent)
        built = build_lexicon(words, open_sources(source, words, stress=stress))
        sources = [f"{counted(each.words, 'word')} by {each.source}" for each in built.contributions]
        write_lexicon(output, built.lexicon, [*notes, *sources])
        _report(built)
        print(output, flush=True)


def _report(built: "Built") -> None:
    for number, each in enumerate(built.contributions):
        own = f", with phones of its own: {' '.join(each.new_phones)}" if number and each.new_phones else ""
        print(f"kikitori: {counted(each.words, 'word')} by {each.source}{own}", file=sys.stderr)
    if built.missing:
        named = ", ".join((*built.missing[:SHOWN], *(["..."] if len(built.missing) > SHOWN else [])))
        print(f"kikitori: {counted(len(built.missing), 'word')} by none: {named}", file=sys.stderr)
    lexicon = built.lexicon
    words, phones = counted(len(lexicon.pronunciations), "word"), counted(len(lexicon.phones), "phone")
    print(f"kikitori: {words}, {phones}", file=sys.stderr)
