"""`kikitori ngram`: an n-gram over label units or words, estimated from texts."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError


def ngram(
    text: common.Text = None,
    data: common.Data = None,
    split: common.Split = None,
    model: common.Model = None,
    words: Annotated[bool, typer.Option("--words", help="Over words instead of a recogniser's labels.")] = False,
    lexicon: Annotated[
        Path | None, typer.Option("--lexicon", help="Pronunciation lexicon whose words count; others are <unk>.")
    ] = None,
    max_words: Annotated[
        int, typer.Option("--max-words", min=0, help="So many words count, the most frequent ones; all by default.")
    ] = 0,
    text_form: common.TextFormOption = common.TextForm.own,
    order: Annotated[int, typer.Option("--order", min=2, max=6, help="Longest n-grams, in labels or words.")] = 4,
    min_count: Annotated[
        int, typer.Option("--min-count", min=1, help="Leave out n-grams of three and more that are rarer.")
    ] = 1,
    prune: Annotated[
        float, typer.Option("--prune", min=0.0, help="Leave out n-grams that gain the text fewer nats per word.")
    ] = 0.0,
    max_lines: common.MaxLines = 0,
    spoken_titles: common.SpokenTitles = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File: .arpa, or with --words .ngram, a tenth as large.")
    ] = None,
) -> None:
    """Estimate an n-gram over a recogniser's label units, for decoding, or over words."""
    with common.one_line_errors():
        if not text and not data:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        if output is None or output.suffix not in ((".arpa", ".ngram") if words else (".arpa",)):
            remedy = "name one, such as words.ngram or words.arpa" if words else "name one, such as lm.arpa"
            raise ConfigError("no file for the n-gram", where="-o", remedy=remedy)
        if not words and (lexicon or max_words or text_form != common.TextForm.own):
            where = "--lexicon" if lexicon else "--max-words" if max_words else "--text-form"
            raise ConfigError("labels are counted, not words", where=where, remedy="add --words")
        if words and model:
            raise ConfigError("words are counted, not its labels", where="--model", remedy="leave it or --words out")
        from itertools import chain

        from kikitori.loading import find_model
        from kikitori.text.corpus import read_lines, speak_titles
        from kikitori.text.lexicon import read_lexicon
        from kikitori.text.units import load_units
        from kikitori.workflows.ngram import write_ngram, write_word_ngram

        books = chain.from_iterable(read_lines(path, max_lines=max_lines) for path in text or ())
        rows = common.read_rows(data, split)
        lines = chain(map(speak_titles, books) if spoken_titles else books, (row.text for row in rows if row.text))
        if words:
            vocabulary = read_lexicon(lexicon).pronunciations if lexicon else ()
            common.make_folder(output.parent)
            counts = write_word_ngram(
                output,
                lines,
                vocabulary=vocabulary,
                max_words=max_words,
                text_form=text_form.value,
                order=order,
                min_count=min_count,
                prune=prune,
            )
        else:
            units = load_units(find_model(model))
            common.make_folder(output.parent)
            counts = write_ngram(output, units, lines, order=order, min_count=min_count, prune=prune)
        print(f"kikitori: n-grams by order: {', '.join(map(str, counts))}", file=sys.stderr)
        print(output, flush=True)
