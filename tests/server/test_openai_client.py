"""The official client of OpenAI against the server: what users point at it."""

import math

import openai
import pytest
from openai.types.audio import (
    Transcription,
    TranscriptionTextDeltaEvent,
    TranscriptionTextDoneEvent,
    TranscriptionVerbose,
)

from kikitori.io.subtitles import CueOptions, srt, vtt
from tests.server.conftest import LONG, SHORT, wav


@pytest.fixture
def create(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:

        def call(samples=SHORT, **options):
            return client.audio.transcriptions.create(
                **{"model": "tiny", "file": ("../../etc/passwd", wav(samples)), **options}
            )

        yield call


def rounded(value):
    return None if value is None else round(value, 3)


@pytest.mark.parametrize("samples", [SHORT, LONG], ids=["short", "long"])
def test_text(create, server, samples):
    expected = server.recognizer.transcribe(samples)
    found = create(samples)
    assert isinstance(found, Transcription)
    assert (found.text, found.usage.type, found.usage.seconds) == (expected.text, "duration", len(samples) / 16000)
    assert create(samples, response_format="text") == expected.text + "\n"


def test_subtitles(create, server):
    expected = server.recognizer.transcribe(LONG, word_times=True)
    assert create(LONG, response_format="srt") == srt(expected, CueOptions())
    assert create(LONG, response_format="vtt") == vtt(expected, CueOptions())


@pytest.mark.parametrize("samples", [SHORT, LONG], ids=["short", "long"])
def test_verbose(create, server, samples):
    expected = server.recognizer.transcribe(samples, word_times=True)
    both = ["word", "segment"]
    found = create(samples, response_format="verbose_json", timestamp_granularities=both)
    TranscriptionVerbose.model_validate(found.model_dump())
    assert (found.text, found.language, found.duration) == (expected.text, "en", len(samples) / 16000)
    segments = [(s.id, s.text, s.start, s.end) for s in found.segments]
    assert segments == [(n, s.text, s.start, s.end) for n, s in enumerate(expected.segments)]
    words = [(w.word, w.start, w.end, w.confidence) for w in found.words]
    assert words == [(w.word, *map(rounded, (w.start, w.end, w.confidence))) for w in expected.words]
    assert all(s.avg_logprob <= 0.0 for s in found.segments)
    assert found.model_extra["flags"] == [*expected.flags]
    assert create(samples, response_format="verbose_json").words is None


def test_other_search_with_its_hypotheses(create, server):
    expected = server.recognizer.transcribe(SHORT, decoding="ctc_beam")
    found = create(response_format="verbose_json", extra_body={"decoding": "ctc_beam", "nbest": 3})
    assert found.text == expected.text
    assert [each["text"] for each in found.model_extra["nbest"]] == [each.text for each in expected.nbest[:3]]
    assert found.model_extra["nbest"][0]["scores"].keys() == expected.nbest[0].scores.keys()


def test_logprobs(create, server):
    found = create(LONG, include=["logprobs"])
    assert "".join(each.token for each in found.logprobs) == found.text
    assert all(bytes(map(int, each.bytes)).decode() == each.token for each in found.logprobs)  # read as floats
    words = server.recognizer.transcribe(LONG, word_times=True).words
    sure = [(word.confidence is None, word.confidence) for word in words]  # without where times are estimated
    assert [(each.logprob is None, each.logprob and math.exp(each.logprob)) for each in found.logprobs] == [
        (unknown, value and pytest.approx(value, abs=0.001)) for unknown, value in sure
    ]
    assert [each.token.strip() for each in found.logprobs] == [word.word for word in words]


def test_stream(create, server):
    *deltas, done = create(LONG, stream=True, include=["logprobs"])
    assert all(isinstance(each, TranscriptionTextDeltaEvent) for each in deltas)
    assert isinstance(done, TranscriptionTextDoneEvent)
    expected = server.recognizer.transcribe(LONG)
    assert len(deltas) == len(expected.segments) > 1
    assert "".join(each.delta for each in deltas) == done.text == expected.text
    assert "".join(each.token for delta in deltas for each in delta.logprobs) == done.text


def test_verbose_stream(create):
    *deltas, done = create(LONG, stream=True, response_format="verbose_json", timestamp_granularities=["word"])
    whole = create(LONG, response_format="verbose_json", timestamp_granularities=["word"])
    assert done.model_extra["words"] == [word.model_dump() for word in whole.words]
    assert [word for each in deltas for word in each.model_extra["segment"]["words"]] == done.model_extra["words"]


def test_any_model_name_of_old_clients(create, server):
    assert create(model="whisper-1").text == server.recognizer.transcribe(SHORT).text


def test_models(server):
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        (model,) = client.models.list()
        assert client.models.retrieve("tiny") == model
    assert (model.id, model.object, model.owned_by) == ("tiny", "model", "kikitori")
    extra = model.model_extra
    assert [(s["name"], s["default"], s["kind"]) for s in extra["searches"]] == [
        ("greedy", True, "integration"),
        ("ctc_greedy", False, "combination"),
        ("ctc_beam", False, "combination"),
    ]
    assert (extra["language"], extra["word_times"], extra["longest_utterance"]) == ("en", True, 1.8)


@pytest.mark.parametrize(
    ("options", "error", "param"),
    [
        ({"model": "gpt-9"}, openai.NotFoundError, "model"),
        ({"language": "ja"}, openai.BadRequestError, "language"),
        ({"prompt": "Kikitori, Nue"}, openai.BadRequestError, "prompt"),
        ({"temperature": 0.4}, openai.BadRequestError, "temperature"),
        ({"response_format": "diarized_json"}, openai.BadRequestError, "response_format"),
        ({"response_format": "srt", "stream": True}, openai.BadRequestError, "response_format"),
        ({"timestamp_granularities": ["word"]}, openai.BadRequestError, "timestamp_granularities"),
        ({"response_format": "text", "include": ["logprobs"]}, openai.BadRequestError, "include"),
        ({"chunking_strategy": {"type": "server_vad"}}, openai.BadRequestError, "chunking_strategy[type]"),
        ({"keywords": ["Nue"]}, openai.BadRequestError, "keywords[]"),
        ({"extra_body": {"decoding": "lexicon"}}, openai.BadRequestError, "decoding"),
        ({"extra_body": {"nbest": 101}}, openai.BadRequestError, "nbest"),
        ({"extra_body": {"hotwords": "Anna"}}, openai.BadRequestError, "hotwords"),
        ({"file": ("a.wav", b"a text")}, openai.UnprocessableEntityError, "file"),
        ({"file": ("a.wav", wav(SHORT)[:5000])}, openai.UnprocessableEntityError, "file"),
        ({"file": ("a.wav", b"")}, openai.UnprocessableEntityError, "file"),
        ({"file": ("a.wav", bytes(500_000))}, openai.APIStatusError, "file"),
    ],
)
def test_refused(create, options, error, param):
    with pytest.raises(error) as caught:
        create(**options)
    assert caught.value.param == param
    assert caught.value.body["message"]
    assert caught.value.status_code in (400, 404, 413, 422)


@pytest.mark.parametrize("options", [{"language": "en"}, {"prompt": ""}, {"temperature": 0}])
def test_granted(create, options):
    assert create(**options) == create()


def test_hotwords_are_those_of_the_recognizer(create, server):
    found = create(extra_body={"decoding": "ctc_beam", "hotwords": "a\n\n we \na"})
    assert found.text == server.recognizer.transcribe(SHORT, decoding="ctc_beam", hotwords=["a", "we"]).text
    with pytest.raises(openai.BadRequestError, match="the CTC head cannot write 7"):
        create(extra_body={"decoding": "ctc_beam", "hotwords": "747"})


def test_silence_has_no_text(create):
    found = create(SHORT * 0.0, response_format="verbose_json", timestamp_granularities=["word", "segment"])
    assert (found.text, found.segments, found.words) == ("", [], [])
    assert "no_speech" in found.model_extra["reasons"]
