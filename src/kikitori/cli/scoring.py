"""`kikitori rescore | perplexity | prior | ngram`: language models and priors, and what they make of hypotheses."""

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import (
    BatchSize,
    Device,
    DeviceOption,
    Model,
    SplitOption,
    TextForm,
    folder_for,
    make_folder,
    manifests,
    one_line_errors,
    only_overrides,
    progress_bar,
    warnings_as_lines,
)
from kikitori.errors import ConfigError


class Estimate(StrEnum):
    """How a label prior is estimated."""

    softmax = "softmax"
    counts = "counts"
    sampled_counts = "sampled_counts"


def rescore(
    predictions: Annotated[Path, typer.Argument(help="predictions.jsonl of an evaluation with n-best lists.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(help="Overrides such as decoding.scorers.lm.path=FOLDER decoding.scorers.lm.scale=0.3."),
    ] = None,
    decoding: Annotated[str, typer.Option("--decoding", help="A YAML file with search: rescoring.")] = "rescoring",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Folder for the report.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Recogniser that wrote the labels; without it, texts count.")
    ] = None,
    device: DeviceOption = Device.auto,
) -> None:
    """Put the n-best lists of an evaluation in another order, by language models and scales."""
    with one_line_errors():
        settings = only_overrides(overrides, "write decoding.name=value")
        output = folder_for("the report", output)
        from kikitori.search.options import RescoringSearch, load_decoding

        options = load_decoding(decoding, settings)
        if not isinstance(options, RescoringSearch):
            raise ConfigError(f"'{options.search}' rescores nothing", where=decoding, remedy="use search: rescoring")
        from kikitori.recognizer import torch_device
        from kikitori.scoring.predictions import read_predictions
        from kikitori.scoring.report import build_report, format_table, write_report
        from kikitori.text.units import load_units
        from kikitori.workflows import rescore as rescoring
        from kikitori.workflows.evaluate import versions

        sets = read_predictions(predictions)
        make_folder(output)
        units = None if model is None else load_units(model)
        done = rescoring.rescore(sets, options, units, torch_device(device.value))
        name = str(predictions)
        report = build_report(done, normalizer=None, decoding=options.search, model=name, versions=versions())
        write_report(output, report, done)
        print(format_table(report), flush=True)


def perplexity(
    model: Annotated[str | None, typer.Option("--model", help="Language model, or that of a speech LLM.")] = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text, one sentence a line, plain, .gz, .xz; may be repeated.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest whose transcripts are text.")] = None,
    split: SplitOption = None,
    text_form: Annotated[
        TextForm, typer.Option("--text-form", help="Form that the text gets first, the same for models to compare.")
    ] = TextForm.own,
    max_lines: Annotated[int, typer.Option("--max-lines", min=0, help="Lines of each file, evenly spread.")] = 0,
    device: DeviceOption = Device.auto,
) -> None:
    """Perplexity of a language model on text: per token, per word and per character."""
    with one_line_errors():
        if model is None:
            raise ConfigError("no language model given", where="--model", remedy="name its folder")
        if not text and not data:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        from kikitori.data.manifest import read_manifest
        from kikitori.recognizer import torch_device
        from kikitori.scorers.language_model import load_language_model
        from kikitori.scorers.options import LMOptions
        from kikitori.scoring.perplexity import format_perplexity
        from kikitori.scoring.perplexity import perplexity as measure
        from kikitori.text.corpus import read_lines

        lines = [(f"{path}", line) for path in text or () for line in read_lines(path, max_lines=max_lines)]
        for path in data or ():
            rows = read_manifest(path, split=split).utterances
            lines += [(f"{path}: {row.utt_id}", row.text) for row in rows if row.text]
        with warnings_as_lines():
            lm = load_language_model(LMOptions(model, text_form.value), torch_device(device.value))
        with progress_bar("scoring", len(lines)) as progress:
            found = measure(lm, lines, progress)
        print(format_perplexity(found), flush=True)


def prior(
    data: Annotated[list[Path] | None, typer.Option("--data", help="JSONL manifest; may be repeated.")] = None,
    split: SplitOption = None,
    model: Model = None,
    by: Annotated[
        Estimate,
        typer.Option(
            "--by",
            help="softmax: what the CTC head gives on average; counts: of transcripts; sampled_counts: of several "
            "segmentations of them, drawn at random.",
        ),
    ] = Estimate.softmax,
    phones: Annotated[bool, typer.Option("--phones", help="Of phones, what the phone head gives on average.")] = False,
    units: Annotated[
        str | None, typer.Option("--units", help="Count in the units of this language model, as it reads texts.")
    ] = None,
    text_form: Annotated[
        TextForm, typer.Option("--text-form", help="Form that texts get before the tokenizer of --units.")
    ] = TextForm.own,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Segmentations drawn of each transcript.")] = 4,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Decides what is drawn.")] = 0,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="File, .safetensors.")] = None,
    batch_size: BatchSize = 8,
    device: DeviceOption = Device.auto,
) -> None:
    """Estimate how probable each label is by itself, for fusion with a language model."""
    with one_line_errors():
        paths = manifests(data)
        if output is None or output.suffix != ".safetensors":
            raise ConfigError("no file for the prior", where="-o", remedy="name one, such as prior.safetensors")
        if units is not None and by == Estimate.softmax:
            raise ConfigError("a CTC head has its own units", where="--units", remedy="use --by counts")
        if phones and by != Estimate.softmax:
            raise ConfigError("transcripts have no phones", where="--phones", remedy="use --by softmax")
        from kikitori.data.manifest import read_manifest
        from kikitori.recognizer import load
        from kikitori.scorers.prior import save_prior
        from kikitori.text.units import labels_fingerprint, load_units, vocabulary_fingerprint, with_text_form
        from kikitori.workflows.prior import sampled_text_prior, speech_prior, text_prior

        rows = [row for path in paths for row in read_manifest(path, split=split).utterances]
        with warnings_as_lines():
            recognizer = load(model, device=device.value)
        counted = recognizer.loaded.units if units is None else with_text_form(load_units(units), text_form.value)
        make_folder(output.parent)
        match by:
            case Estimate.softmax:
                with progress_bar("listening", len(rows)) as progress:
                    found = speech_prior(recognizer, rows, phones=phones, batch_size=batch_size, progress=progress)
            case Estimate.counts:
                found = text_prior(counted, rows)
            case Estimate.sampled_counts:
                found = sampled_text_prior(counted, rows, samples=samples, seed=seed)
        named = labels_fingerprint(recognizer.phones) if phones else vocabulary_fingerprint(counted)
        save_prior(output, found, vocabulary=named)
        print(output, flush=True)


def ngram(
    text: Annotated[
        list[Path] | None, typer.Option("--text", help="Text, one sentence a line, plain, .gz, .xz; may be repeated.")
    ] = None,
    data: Annotated[list[Path] | None, typer.Option("--data", help="Manifest whose transcripts are text.")] = None,
    split: SplitOption = None,
    model: Model = None,
    words: Annotated[bool, typer.Option("--words", help="Over words instead of a recogniser's labels.")] = False,
    lexicon: Annotated[
        Path | None, typer.Option("--lexicon", help="Pronunciation lexicon whose words count; others are <unk>.")
    ] = None,
    max_words: Annotated[
        int, typer.Option("--max-words", min=0, help="So many words count, the most frequent ones; all by default.")
    ] = 0,
    text_form: Annotated[
        TextForm, typer.Option("--text-form", help="Form that the text gets before it is split into words.")
    ] = TextForm.own,
    order: Annotated[int, typer.Option("--order", min=2, max=6, help="Longest n-grams, in labels or words.")] = 4,
    min_count: Annotated[
        int, typer.Option("--min-count", min=1, help="Leave out n-grams of three and more that are rarer.")
    ] = 1,
    prune: Annotated[
        float, typer.Option("--prune", min=0.0, help="Leave out n-grams that gain the text fewer nats per word.")
    ] = 0.0,
    max_lines: Annotated[int, typer.Option("--max-lines", min=0, help="Lines of each file, evenly spread.")] = 0,
    spoken_titles: Annotated[
        bool, typer.Option("--spoken-titles", help="Write Mr., Mrs. and Dr. of --text as they are spoken (English).")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File: .arpa, or with --words .ngram, a tenth as large.")
    ] = None,
) -> None:
    """Estimate an n-gram over a recogniser's label units, for decoding with KenLM, or over words."""
    with one_line_errors():
        if not text and not data:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        if output is None or output.suffix not in ((".arpa", ".ngram") if words else (".arpa",)):
            remedy = "name one, such as words.ngram or words.arpa" if words else "name one, such as lm.arpa"
            raise ConfigError("no file for the n-gram", where="-o", remedy=remedy)
        if not words and (lexicon or max_words or text_form != TextForm.own):
            where = "--lexicon" if lexicon else "--max-words" if max_words else "--text-form"
            raise ConfigError("labels are counted, not words", where=where, remedy="add --words")
        if words and model:
            raise ConfigError("words are counted, not its labels", where="--model", remedy="leave it or --words out")
        from itertools import chain

        from kikitori.data.manifest import read_manifest
        from kikitori.recognizer import BUNDLED
        from kikitori.text.corpus import read_lines, speak_titles
        from kikitori.text.lexicon import read_lexicon
        from kikitori.text.units import load_units
        from kikitori.workflows.ngram import write_ngram, write_word_ngram

        books = chain.from_iterable(read_lines(path, max_lines=max_lines) for path in text or ())
        rows = [row for path in data or () for row in read_manifest(path, split=split).utterances]
        lines = chain(map(speak_titles, books) if spoken_titles else books, (row.text for row in rows if row.text))
        if words:
            vocabulary = read_lexicon(lexicon).pronunciations if lexicon else ()
            make_folder(output.parent)
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
            units = load_units(model or BUNDLED)
            make_folder(output.parent)
            counts = write_ngram(output, units, lines, order=order, min_count=min_count, prune=prune)
        print(f"kikitori: n-grams by order: {', '.join(map(str, counts))}", file=sys.stderr)
        print(output, flush=True)
