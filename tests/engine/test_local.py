"""The engine: requests of many clients together, each with the text that it would have alone."""

import asyncio
import threading

import numpy as np
import pytest

from kikitori.engine.base import ClosedError, QueueFullError, Request
from kikitori.engine.local import LocalEngine
from kikitori.engine.models import by_name, served
from kikitori.errors import AudioError, ConfigError, KikitoriError
from kikitori.loading import load
from kikitori.recognizer import PLAIN, Recognizer
from kikitori.segment import chunks
from tests.segmenters import LoudIsSpeech
from tests.tiny import save_tiny, tiny_waveform

WAVES = [tiny_waveform(0.5 + 0.3 * number, number) for number in range(4)]
LONG = np.concatenate([part for wave in WAVES for part in (wave, np.zeros(8_000, np.float32))])


@pytest.fixture(scope="module")
def recognizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recogniser") / "tiny"
    save_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "new_segmenter", LoudIsSpeech)
        yield load(folder, device="cpu", guards=PLAIN)


class Gate:
    """Holds decoding up until it is opened, and notes the samples of each batch."""

    def __init__(self, monkeypatch):
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches = []
        plain = Recognizer.recognize_pieces

        def recognize(recognizer, batch, *rest):
            self.entered.set()
            assert self.open.wait(30)
            self.batches.append([piece.chunk.samples for piece in batch])
            return plain(recognizer, batch, *rest)

        monkeypatch.setattr(Recognizer, "recognize_pieces", recognize)


@pytest.fixture
def gate(monkeypatch):
    made = Gate(monkeypatch)
    yield made
    made.open.set()


@pytest.fixture
def engine(recognizer):
    made = LocalEngine(by_name([served(recognizer, ["ctc_greedy"])]), batch_size=3, max_seconds=8.0)
    yield made
    made.close()


def request(samples, decoding="greedy", **options):
    return Request([samples], "tiny", decoding, **options)


def plain(segments):
    """Segments without confidences, whose last digits depend on the batch."""
    return [(s.start, s.end, s.text, s.flags, [(w.word, w.start, w.end) for w in s.words]) for s in segments]


async def held(engine, gate):
    """A job that is being decoded until the gate is opened."""
    job = engine.submit(request(WAVES[0]))
    await asyncio.to_thread(gate.entered.wait, 30)
    return job


def test_who_waits_is_decoded_together(engine, gate, recognizer):
    async def texts():
        first = await held(engine, gate)
        jobs = [engine.submit(request(wave)) for wave in WAVES]
        other = engine.submit(request(WAVES[1], "ctc_greedy"))
        gate.open.set()
        return [(await job.transcript()).text for job in (first, *jobs, other)]

    found = asyncio.run(texts())
    assert gate.batches == [[len(WAVES[0])], [*map(len, WAVES[:3])], [len(WAVES[3])], [len(WAVES[1])]]
    alone = [recognizer.transcribe(wave).text for wave in (WAVES[0], *WAVES)]
    assert found == [*alone, recognizer.transcribe(WAVES[1], decoding="ctc_greedy").text]
    load = engine.load()
    assert (load.jobs, load.seconds, load.batches, load.utterances) == (0, 0.0, 4, 6)
    assert load.done_seconds == pytest.approx((sum(map(len, WAVES)) + len(WAVES[0]) + len(WAVES[1])) / 16_000)


def test_a_long_recording_does_not_hold_up_short_ones(engine, gate, recognizer):
    async def run():
        first = await held(engine, gate)
        long, short = engine.submit(request(LONG, word_times=True)), engine.submit(request(WAVES[3]))
        gate.open.set()
        await first.transcript()
        return await long.transcript(), await short.transcript()

    long, short = asyncio.run(run())
    assert len(WAVES[3]) in gate.batches[1]  # beside two utterances of the long one, not behind all four
    assert len(gate.batches[1]) == 3
    assert short.text == recognizer.transcribe(WAVES[3]).text
    assert plain(long.segments) == plain(recognizer.transcribe(LONG, word_times=True).segments)


def test_what_is_urgent_goes_first(engine, gate):
    async def run():
        first = await held(engine, gate)
        jobs = [engine.submit(request(wave, "ctc_greedy")) for wave in WAVES[1:]]
        jobs.append(engine.submit(request(WAVES[0], urgent=True)))
        gate.open.set()
        for job in (first, *jobs):
            await job.transcript()

    asyncio.run(run())
    assert gate.batches[:2] == [[len(WAVES[0])], [len(WAVES[0])]]


def test_segments_come_as_they_are_known(engine, recognizer):
    async def run():
        job = engine.submit(request(LONG, word_times=True))
        return [segment async for segment in job.segments()], await job.transcript()

    segments, transcript = asyncio.run(run())
    assert (*segments,) == transcript.segments
    assert plain(segments) == plain(recognizer.transcribe(LONG, word_times=True).segments)


def test_a_full_queue_and_who_leaves(engine, gate):
    async def run():
        first = await held(engine, gate)
        second = engine.submit(request(LONG))
        with pytest.raises(QueueFullError) as caught:
            engine.submit(request(LONG))
        assert caught.value.retry_after >= 1
        second.cancel()
        assert engine.load().seconds == len(WAVES[0]) / 16_000
        third = engine.submit(request(WAVES[3]))
        gate.open.set()
        await first.transcript()
        await third.transcript()
        alone = np.concatenate([LONG, LONG])  # more than may wait, but nothing waits
        return await engine.submit(request(alone)).transcript()

    assert asyncio.run(run()).duration == 2 * len(LONG) / 16_000
    assert gate.batches[1] == [len(WAVES[3])]  # none of what was cancelled


def test_a_failure_is_that_of_one(engine, gate, recognizer, monkeypatch):
    plain = Recognizer._recognize

    def recognize(self, waveforms, *rest):
        if any(len(wave) == len(WAVES[1]) for wave in waveforms):
            raise RuntimeError("out of memory")
        return plain(self, waveforms, *rest)

    monkeypatch.setattr(Recognizer, "_recognize", recognize)
    silence = np.full(16_000, np.nan, np.float32)

    async def run():
        first = await held(engine, gate)
        jobs = [engine.submit(request(wave)) for wave in (WAVES[1], WAVES[2], silence)]
        gate.open.set()
        await first.transcript()
        with pytest.raises(RuntimeError, match="out of memory"):
            await jobs[0].transcript()
        with pytest.raises(AudioError):
            await jobs[2].transcript()
        return await jobs[1].transcript()

    assert asyncio.run(run()).text == recognizer.transcribe(WAVES[2]).text
    assert engine.load().jobs == 0


def test_an_engine_that_ends(engine, gate):
    async def run():
        first, second = await held(engine, gate), engine.submit(request(WAVES[1]))
        closing = asyncio.create_task(asyncio.to_thread(engine.close))
        await asyncio.sleep(0.05)
        with pytest.raises(ClosedError):
            engine.submit(request(WAVES[1]))
        gate.open.set()
        assert (await first.transcript()).text
        with pytest.raises(ClosedError):
            await second.transcript()
        await closing

    asyncio.run(run())


def test_searches_that_work_are_offered(recognizer):
    model = served(recognizer, ["ctc_greedy"])
    assert [*model.searches] == ["greedy", "ctc_greedy"]
    assert model.card.ctc
    assert not served(recognizer, []).card.ctc
    with pytest.raises(KikitoriError, match="no phone head"):
        served(recognizer, ["lexicon"])
    with pytest.raises(ConfigError, match="no such search"):
        served(recognizer, ["guess"])
    with pytest.raises(ConfigError, match="two models"):
        by_name([model, model])
