"""Hotwords: rare words that were said, and foreign names that were not, before and after.

    pip install faker
    python benchmarks/hotwords.py MANIFEST [MANIFEST ...] --split test [--model M] [--decoding D] [--scale S]

The list is the rarest words of the references, by the word n-gram of tiny-en, and names of other languages that no
reference holds. Half of the utterances come from each manifest where it has as many, evenly spread.
"""

import argparse
import random
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import kaldialign
import torch

import kikitori
from kikitori.data.manifest import read_manifest
from kikitori.data.speech import read_utterance
from kikitori.errors import AudioError, KikitoriWarning
from kikitori.loading import BUNDLED
from kikitori.recognizer import PLAIN
from kikitori.scorers.hotwords.letters import letters_of
from kikitori.scorers.hotwords.phrases import compile_hotwords
from kikitori.scorers.options import ScorerOptions
from kikitori.search.guards import guarded
from kikitori.text.ngram.model import load_ngram, score_text
from kikitori.text.normalize import normalize
from kikitori.types import Utterance

LOCALES = (
    *("de_DE", "fr_FR", "it_IT", "es_ES", "pl_PL", "fi_FI", "hu_HU", "cs_CZ"),
    *("tr_TR", "nl_NL", "sv_SE", "pt_BR", "ro_RO", "hr_HR", "no_NO", "da_DK"),
)
BATCH = 8


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("manifests", type=Path, nargs="+")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--utterances", type=int, default=200)
    parser.add_argument("--rare", type=int, default=100)
    parser.add_argument("--foreign", type=int, default=1000)
    parser.add_argument("--model")
    parser.add_argument("--decoding")
    parser.add_argument("--scale", type=float)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", KikitoriWarning)
    rows = chosen(
        [read_manifest(file, split=options.split).utterances for file in options.manifests], options.utterances
    )
    texts = [f" {letters_of(row.text or '')} " for row in rows]
    rare, foreign = rarest(texts, options.rare), foreign_names(texts, options.foreign)
    recognizer = kikitori.load(options.model, device="cpu", decoding=options.decoding)
    if options.scale is not None:
        recognizer = replace(recognizer, decoding=scaled(recognizer.decoding, options.scale))
    hotwords = compile_hotwords((*rare, *foreign), recognizer.loaded.ctc_units, "en")
    print(
        f"{len(rows)} utterances, {len(rare)} rare words, {len(foreign)} names; {len(hotwords.letters)} can be written"
    )
    rows.sort(key=lambda row: row.duration)
    counts = {"without": Counts(), "with": Counts()}
    spotting = encoding = 0.0
    for start in range(0, len(rows), BATCH):
        part = rows[start : start + BATCH]
        began = time.process_time()
        batch = recognizer.encode([read_utterance(row) for row in part], hotwords=hotwords)
        encoding += time.process_time() - began
        for counted, given in zip(counts.values(), (replace(batch, hotwords=None), batch), strict=True):
            assert given.ctc_logits  # computed once
            began = time.process_time()
            results = guarded(given, recognizer.decoding, PLAIN)
            counted.seconds += time.process_time() - began
            for row, result in zip(part, results, strict=True):
                counted.add(row.text or "", "" if isinstance(result, AudioError) else result[0].text, rare, foreign)
        began = time.process_time()
        hotwords.evident(*batch.ctc_logits)
        spotting += time.process_time() - began
        print(f"{start + len(part)} done:", *counts.values(), sep="\n    ", flush=True)
    for name, counted in counts.items():
        print(f"{name}: {counted}, CPU seconds of search an utterance {counted.seconds / len(rows):.2f}")
    print(f"CPU seconds an utterance: encoder {encoding / len(rows):.2f}, evidence {spotting / len(rows):.4f}")
    for counted in counts.values():
        print("invented:", *counted.invented, sep="\n    ")


class Counts:
    """What was said and found of the rare words, names that nobody said, word errors."""

    def __init__(self) -> None:
        self.said = self.found = self.wrong = self.errors = self.words = 0
        self.seconds, self.invented = 0.0, list[str]()

    def add(self, reference: str, text: str, rare: Sequence[str], foreign: Sequence[str]) -> None:
        said, written = f" {letters_of(reference)} ", f" {letters_of(text)} "
        for word in rare:
            there, found = f" {word} " in said, f" {word} " in written
            self.said, self.found, self.wrong = (
                self.said + there,
                self.found + (there and found),
                self.wrong + (found > there),
            )
        self.invented += [f"{name}: {reference} | {text}" for name in foreign if f" {letters_of(name)} " in written]
        scored = [normalize("whisper_en", each).split() for each in (reference, text)]
        self.errors += kaldialign.edit_distance(*scored)["total"]
        self.words += len(scored[0])

    def __str__(self) -> str:
        return (
            f"{self.found} of {self.said} rare words, {self.wrong} where nobody said them, "
            f"{len(self.invented)} foreign names, WER {self.errors / self.words:.4f} ({self.errors} / {self.words})"
        )


def chosen(sets: Sequence[Sequence[Utterance]], number: int) -> list[Utterance]:
    """So many utterances of some sets, evenly spread in each; what a small set lacks comes from the next."""
    found: list[Utterance] = []
    for place, rows in enumerate(sets):
        most = min(len(rows), -(-(number - len(found)) // (len(sets) - place)))
        most = min(len(rows), number - len(found)) if place == len(sets) - 1 else most
        found += [rows[each * len(rows) // most] for each in range(most)]
    return found


def rarest(texts: Sequence[str], number: int) -> list[str]:
    """Words of four letters and more that the word n-gram finds the least likely, those that it lacks first."""
    ngram = load_ngram(BUNDLED / "words.ngram")
    words = {word for text in texts for word in text.split() if len(word) >= 4}
    return sorted(words, key=lambda word: (score_text(ngram, [word]) if word in ngram.ids else -99.0, word))[:number]


def foreign_names(texts: Sequence[str], number: int) -> list[str]:
    """Family names, first names and both, of 16 languages, that are in none of the texts."""
    from faker import Faker

    generator, found = random.Random(7), set[str]()
    for locale in LOCALES:
        faker = Faker(locale)
        faker.seed_instance(7)
        names = set[str]()
        while len(names) < 130:
            kind = generator.random()
            first, last = faker.first_name, faker.last_name
            name = last() if kind < 0.5 else first() if kind < 0.75 else f"{first()} {last()}"
            names |= {name} if len(name) >= 4 else set()
        found |= names
    unsaid = [name for name in sorted(found) if not any(f" {letters_of(name)} " in text for text in texts)]
    generator.shuffle(unsaid)
    return unsaid[:number]


def scaled(options: Any, scale: float) -> Any:
    """A search with another scale of hotwords."""
    if hasattr(options, "first"):
        return replace(options, first=scaled(options.first, scale))
    return replace(options, scorers={**options.scorers, "hotwords": ScorerOptions(scale=scale)})


if __name__ == "__main__":
    main()
