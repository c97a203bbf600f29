"""From predictions to a diagnosis: the command, its files, and scores of references against brute force."""

import json
from dataclasses import replace
from itertools import product
from math import exp, inf, log

import numpy as np
import pytest
import soundfile as sf

from kikitori.cli.common import WRONG_CALL
from kikitori.data.manifest import write_manifest
from kikitori.data.speech import read_utterance
from kikitori.errors import ConfigError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.loading import load
from kikitori.scoring.errors.breakdown import scored_rows
from kikitori.scoring.errors.diagnosis import diagnose, form_of
from kikitori.scoring.errors.search import Scores
from kikitori.scoring.errors.tables import sections
from kikitori.scoring.predictions import read_evaluations
from kikitori.scoring.report import Prediction, build_report, write_report
from kikitori.search.options import CTCGreedySearch
from kikitori.types import Hypothesis, Utterance
from kikitori.workflows.diagnose import reference_scores
from kikitori.workflows.evaluate import Searching, evaluate
from tests.commands import call
from tests.tiny import save_tiny, tiny_waveform


def prediction(said, *texts, language="en", **more):
    nbest = tuple(Hypothesis((), text, -1.0 * place, scores={"ctc": -1.0 * place}) for place, text in enumerate(texts))
    return Prediction(Utterance("a.wav", 3.0, said, language=language), texts[0], 0.1, nbest=nbest, **more)


SECONDS = (0.12, 0.1, 0.05)
PARTS = [("the crow flew", "train"), ("crows", "dev")]
PREDICTIONS = [
    prediction("The crow flew nonetheless", "the cow flew none the less", "the crow flew none the less"),
    prediction("crows fly", "fly", flags=("<loop>",)),
    prediction("the end", "the end"),
]


def written(folder, predictions=PREDICTIONS, name="a"):
    report = build_report({name: predictions}, normalizer=None, decoding="d", model="m", versions={})
    write_report(folder, report, {name: predictions})
    return folder / "predictions.jsonl"


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A tiny recogniser, short recordings, and what it makes of them."""
    folder = tmp_path_factory.mktemp("speech")
    save_tiny(folder / "model")
    rows = []
    for index, seconds in enumerate(SECONDS):
        sf.write(folder / f"{index}.wav", tiny_waveform(seconds, index), SAMPLE_RATE)
        rows.append({"audio_filepath": f"{index}.wav", "duration": seconds, "text": "x", "language": "en"})
    write_manifest(folder / "manifest.jsonl", rows)
    return folder


def test_tables_and_files(tmp_path):
    (tmp_path / "text.txt").write_text("The crow.\nThe way to the end of the cow\n")
    file = written(tmp_path / "a")
    result = call("diagnose", file, "--text", tmp_path / "text.txt", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "errors.json").read_text())["diagnosis"]
    counts = {"substitutions": 2, "deletions": 1, "insertions": 2, "reference_length": 8}
    assert found["total"]["words"] == {**counts, "errors": 5, "rate": 5 / 8}
    assert {each["kind"]: each["errors"] for each in found["bounds"]} == {
        "another order of the n-best lists (up to 2)": 1,
        "near misses": 1,  # crow and cow
        "words run together or apart": 3,
        "insertions": 2,
        "deletions": 1,
        f"words that {tmp_path.name}/text.txt never has": 2,  # nonetheless, crows
        f"outputs that are no words of {tmp_path.name}/text.txt": 2,  # none, less
    }
    assert [each["rate"] for each in found["bounds"]][1:3] == [4 / 8, 2 / 8]
    assert found["lists"]["oracle"] == {"1": 5, "2": 4}
    assert found["groups"]["flag"][0]["name"] == "<loop>"
    assert found["ctc"] is None
    for line in ("another order of the n-best lists (up to 2)", "none the less", "is not in the list", "<loop>"):
        assert line in result.stdout
    page = (tmp_path / "out" / "errors.html").read_text()
    assert "<h1>Errors</h1>" in page
    assert "&lt;loop&gt;" in page
    assert "<loop>" not in page


def test_several_evaluations(tmp_path):
    one, same, other = written(tmp_path / "one"), written(tmp_path / "same"), written(tmp_path / "other", name="b")
    assert [*read_evaluations([one, other])] == ["a", "b"]
    both = read_evaluations([one, same, other])
    assert [*both] == [f"{tmp_path / 'one'}", f"{tmp_path / 'same'}", "b"]
    found = diagnose(scored_rows(both), {})
    assert [each.name for each in found.groups["set"]] == [*both]
    assert found.total.utterances == 9
    assert [*read_evaluations([one, one])] == ["a"]


def test_transcripts_as_text(tmp_path):
    rows = [{"audio_filepath": "a.wav", "duration": 1.0, "text": text, "split": split} for text, split in PARTS]
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = call("diagnose", written(tmp_path / "a"), "--data", tmp_path / "manifest.jsonl", "--split", "train")
    assert f"words of {tmp_path.name}/manifest.jsonl, train" in result.stdout
    assert "3 words, 3 different ones" in result.stdout


def test_an_empty_class_of_everything():
    """Nothing wrong, no lists, no words: tables that would say nothing are left out."""
    found = diagnose(scored_rows({"a": [prediction("yes", "yes")]}), {})
    assert found.bounds == ()
    assert [part.title for part in sections(found)] == [
        "Errors",
        "Who and how long",
        "Acoustics and spelling",
        "Length",
    ]
    nothing = diagnose(scored_rows({"a": [Prediction(Utterance("a.wav", 0.0, "", language="en"), "", 0.0)]}), {})
    assert nothing.total.words.rate == 0.0
    assert sections(nothing)


def test_what_is_wrong_is_one_line(tmp_path):
    rows = [prediction("eins", "zwei", language="de")], [prediction("one", "two")]
    form = {"a": rows[0], "b": rows[1]}
    with pytest.raises(ConfigError, match="several normalizers"):
        form_of(scored_rows(form))
    for arguments in (["--split", "dev"], ["--text", tmp_path / "none.txt"], ["--data", tmp_path / "none.jsonl"]):
        result = call("diagnose", written(tmp_path / "a"), *arguments)
        assert result.exit_code == WRONG_CALL
        assert len(result.stderr.splitlines()) == 1
    assert "cannot be read" in call("diagnose", tmp_path / "none.jsonl").stderr


def test_scores_are_sums_over_all_paths(speech):
    recognizer = load(speech / "model")
    utterances = [Utterance(speech / f"{n}.wav", seconds, "x", language="en") for n, seconds in enumerate(SECONDS)]
    rows = scored_rows(evaluate(Searching(recognizer, CTCGreedySearch()), {"a": utterances}))
    found = reference_scores(recognizer, rows, batch_size=2)
    for row, score, alone in zip(rows, found, reference_scores(recognizer, rows, batch_size=1), strict=True):
        assert (score.reference, score.found) == pytest.approx((alone.reference, alone.found), abs=1e-4)
        log_probs, lengths = recognizer.ctc_log_probs([read_utterance(row.prediction.utterance)])
        frames = log_probs[0, : int(lengths[0])].tolist()
        assert score.reference == pytest.approx(all_paths(frames, recognizer.loaded.units.encode("x")), abs=1e-4)
        assert score.found == pytest.approx(all_paths(frames, row.prediction.nbest[0].labels), abs=1e-4)


def all_paths(frames, labels):
    """Log-probability of all ways to write the labels, by trying every path."""
    blank, total = len(frames[0]) - 1, 0.0
    for path in product({*labels, blank}, repeat=len(frames)):
        kept = [label for place, label in enumerate(path) if place == 0 or label != path[place - 1]]
        if [label for label in kept if label != blank] == list(labels):
            total += exp(sum(frame[label] for frame, label in zip(frames, path, strict=True)))
    return log(total) if total else -inf


def test_speech_and_labels_of_others(speech):
    """What is too short to be heard is impossible; labels that are not the recogniser's are made from the text."""
    recognizer = load(speech / "model")
    sf.write(speech / "short.wav", np.zeros(100), SAMPLE_RATE)
    short = prediction("x", "y")
    short = replace(short, utterance=replace(short.utterance, audio_filepath=speech / "short.wav", duration=0.00625))
    heard = replace(short, utterance=replace(short.utterance, audio_filepath=speech / "1.wav", duration=SECONDS[1]))
    own = replace(heard.nbest[0], labels=tuple(recognizer.loaded.units.encode("y")))
    foreign = replace(own, labels=(999_999,))
    rows = scored_rows({"a": [short, *(replace(heard, nbest=(each,)) for each in (own, foreign))]})
    found = reference_scores(recognizer, rows)
    assert found[0] == Scores(-inf, -inf)
    assert found[1] == found[2] != found[0]


def test_the_command_scores_references(speech, tmp_path):
    model = ["--model", speech / "model"]
    evaluated = ["--data", speech / "manifest.jsonl", "--decoding", "ctc_greedy", "-o", tmp_path / "a", *model]
    assert call("evaluate", *evaluated).exit_code == 0
    result = call("diagnose", tmp_path / "a" / "predictions.jsonl", *model, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "errors.json").read_text())["diagnosis"]["ctc"]
    assert sum(found[name] for name in ("found", "search", "scores", "impossible")) == 3
    assert "prefers the reference: search or other scorers lost it" in result.stdout
