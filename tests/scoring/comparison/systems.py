"""Predictions of made-up systems."""

from kikitori.scoring.report import Prediction, build_report, write_report
from kikitori.types import Hypothesis, Utterance

SAID = ("The crow flew home.", "Crows fly", "the end", "nothing at all")


def prediction(utt_id, said, *texts, time=0.1, language="en", **more):
    nbest = tuple(Hypothesis((), text, -1.0 * place, scores={"ctc": -1.0 * place}) for place, text in enumerate(texts))
    utterance = Utterance("a.wav", 3.0, said, utt_id=utt_id, language=language)
    return Prediction(utterance, texts[0], time, nbest=nbest, **more)


def system(*texts, time=0.1):
    """Predictions of the utterances `SAID`; a tuple is an n-best list."""
    lists = [text if isinstance(text, tuple) else (text,) for text in texts]
    return [prediction(f"u{n}", said, *each, time=time) for n, (said, each) in enumerate(zip(SAID, lists, strict=True))]


SMALL = system("the crow flew", ("flies fly", "crows fly"), "the end", "nothing at tall")
LARGE = system("the crow flew home", "crows fly", "the ant", "nothing at all", time=0.4)


def written(folder, predictions, name="test"):
    sets = {name: predictions}
    write_report(folder, build_report(sets, normalizer=None, decoding="greedy", model="m", versions={}), sets)
    return folder
