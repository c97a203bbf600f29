"""`kikitori data synthesize`: speech to train on, read aloud by speech synthesisers from texts."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError, counted
from kikitori.io.progress import progress_bar


class AudioFormat(StrEnum):
    """How the recordings are stored."""

    flac = "flac"
    opus = "opus"


def synthesize(
    text: common.Text = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            "--engine",
            help="espeak-ng, flite, festival or openjtalk; ENGINE:VOICE,VOICE takes these voices; may be repeated, "
            "each gets as many sentences.",
        ),
    ] = None,
    avoid: Annotated[
        list[str] | None,
        typer.Option(
            "--avoid",
            help="Manifest, or MANIFEST:SPLIT, with transcripts for measuring: no sentence that shares six words in a "
            "row with one; may be repeated.",
        ),
    ] = None,
    output: common.Folder = None,
    language: Annotated[str, typer.Option("--language", help="Language code of text and voices.")] = "en",
    max_lines: Annotated[int, typer.Option("--max-lines", min=0, help="Sentences, evenly spread; 0 takes all.")] = 1000,
    shortest: Annotated[int, typer.Option("--shortest", min=1, help="Words, or characters of Japanese.")] = 3,
    longest: Annotated[int, typer.Option("--longest", min=1, help="Words, or characters of Japanese.")] = 25,
    characters: Annotated[
        str, typer.Option("--characters", help="All that a sentence may hold, as inside [] in a regular expression.")
    ] = "",
    column: Annotated[int, typer.Option("--column", min=0, help="Column of the text in .tsv, from 1.")] = 0,
    spoken_column: Annotated[
        int, typer.Option("--spoken-column", min=0, help="Column that is spoken instead, such as kana.")
    ] = 0,
    text_form: common.TextFormOption = common.TextForm.own,
    in_kana: Annotated[
        bool, typer.Option("--in-kana", help="The manifest's text is the reading in kana, the sentence is `written`.")
    ] = False,
    spoken_titles: common.SpokenTitles = False,
    speed: Annotated[tuple[float, float], typer.Option(help="Range of the rate of speech.")] = (0.8, 1.15),
    pitch: Annotated[tuple[float, float], typer.Option(help="Range of factors of the pitch.")] = (0.85, 1.2),
    size: Annotated[
        tuple[float, float], typer.Option(help="Range of factors of all frequencies: above 1, a smaller speaker.")
    ] = (0.92, 1.12),
    reverberation: Annotated[
        float, typer.Option("--reverberation", min=0.0, max=1.0, help="Fraction of the recordings made in a room.")
    ] = 0.4,
    noise: Annotated[
        float, typer.Option("--noise", min=0.0, max=1.0, help="Fraction of the recordings with audible noise.")
    ] = 0.4,
    audio_format: Annotated[AudioFormat, typer.Option("--format", help="Of the audio files.")] = AudioFormat.flac,
    seed: common.Seed = 0,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Synthesisers that run at a time.")] = 1,
) -> None:
    """Have sentences of a text read aloud by speech synthesisers, as speech to train on; killed, it goes on."""
    with common.one_line_errors():
        if not text:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        if not engine:
            raise ConfigError("no engine given", where="--engine", remedy="name espeak-ng, flite, festival, openjtalk")
        output = common.folder_for("the recordings", output)
        for name, (low, high) in (("--speed", speed), ("--pitch", pitch), ("--size", size)):
            if not 0.4 <= low <= high <= 2.5:
                raise ConfigError("not a range within 0.4 to 2.5", where=name, remedy=f"write {name} 0.9 1.1")
        from kikitori.data.overlap import read_held_out
        from kikitori.data.synthesis.run import SynthesisConfig, VoiceVariation
        from kikitori.data.synthesis.run import synthesize as read_aloud
        from kikitori.data.synthesis.sentences import Choice, choose_sentences
        from kikitori.data.synthesis.tts import load_engine

        choice = Choice(
            language=language,
            column=column,
            spoken_column=spoken_column,
            shortest=shortest,
            longest=longest,
            characters=characters,
            text_form=text_form.value,
            spoken_titles=spoken_titles,
            avoid=read_held_out(avoid or ()),
        )
        engines = {}
        for each in engine:
            name, _, voices = each.partition(":")
            if name in engines:
                raise ConfigError("is given twice", where=f"--engine {name}", remedy="name all its voices in one")
            engines[name] = load_engine(name, [voice for voice in voices.split(",") if voice], language=language)
        variation = VoiceVariation(speed, pitch, size, reverberation, noise, seed)
        common.make_folder(output)
        sentences = choose_sentences(text, choice, max_lines=max_lines)
        with progress_bar("speaking", len(sentences)) as progress:
            config = SynthesisConfig(engines, language, variation, audio_format.value, in_kana)
            report = read_aloud(sentences, config, output, workers=workers, progress=progress)
        for problem, count in sorted(report.failures.items()):
            print(f"kikitori: warning: left out {count}: {problem}", file=sys.stderr)
        print(f"kikitori: {counted(len(report.rows), 'utterance')}, {report.seconds / 3600:.2f} h", file=sys.stderr)
        print(output / "manifest.jsonl", flush=True)
