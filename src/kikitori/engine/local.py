"""The engine of this process: one thread that decodes the utterances of many requests together.

Requests wait in a queue bounded in seconds of audio. Each batch begins with the utterance that waits longest; others of
the same model and search join it, those of other requests first, so that a long recording does not hold up short ones.
The text does not depend on the batch, as ever.
"""

import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from time import monotonic

from kikitori.context import Context
from kikitori.engine.base import ClosedError, Job, Load, ModelCard, QueueFullError, Request
from kikitori.engine.models import ServedModel
from kikitori.errors import KikitoriError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.pieces import Piece, pieces_of
from kikitori.transcript import Part, SegmentStream, transcript
from kikitori.types import Transcript

FIRST_SPEED = 10.0  # audio seconds a second, until it has been measured
LONGEST_WAIT_S = 600  # that a client is told to wait

log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Work:
    """A job with what is left to do of it and what has been found."""

    job: Job
    model: ServedModel
    pieces: Iterator[Piece]
    stream: SegmentStream
    parts: list[Part] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, Context]:
        """What utterances that are decoded together have in common."""
        return self.job.request.model, self.job.request.decoding, self.job.request.context


class LocalEngine:
    """An `Engine` over recognisers in this process.

    Args:
        models: By name, the default one first.
        batch_size: Most utterances decoded together.
        max_seconds: Audio that may wait; a request alone may have more.
    """

    def __init__(self, models: Mapping[str, ServedModel], *, batch_size: int = 8, max_seconds: float = 3600.0) -> None:
        self._models, self._batch_size, self._max_seconds = models, batch_size, max_seconds
        self._cards = tuple(model.card for model in models.values())
        self._changed = threading.Condition(threading.RLock())
        self._urgent: deque[_Work] = deque()
        self._waiting: deque[_Work] = deque()
        self._pending: dict[Job, float] = {}
        self._done = Load(0, 0.0, 0.0, 0.0, 0, 0)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    @property
    def models(self) -> Sequence[ModelCard]:
        """As of `Engine`."""
        return self._cards

    def submit(self, request: Request) -> Job:
        """As of `Engine`."""
        model = self._models[request.model]
        with self._changed:
            self.check_room(request.seconds)
            job = Job(request, self._forget)
            self._pending[job] = request.seconds
            language = model.recognizer.loaded.trained_on.language
            source = pieces_of(request.blocks, "audio", model.recognizer.longest)
            work = _Work(job, model, source, SegmentStream(language, request.word_times))
            (self._urgent if request.urgent else self._waiting).append(work)
            self._changed.notify()
        return job

    def check_room(self, seconds: float) -> None:
        """As of `Engine`."""
        with self._changed:
            if self._closed:
                raise ClosedError
            waiting = sum(self._pending.values())
            if waiting and waiting + seconds > self._max_seconds:
                done = self._done
                speed = done.done_seconds / done.busy_seconds if done.busy_seconds else FIRST_SPEED
                raise QueueFullError(min(max(ceil(waiting / speed), 1), LONGEST_WAIT_S))

    def load(self) -> Load:
        """As of `Engine`."""
        with self._changed:
            return replace(self._done, jobs=len(self._pending), seconds=sum(self._pending.values()))

    def close(self) -> None:
        """As of `Engine`."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _forget(self, job: Job) -> None:
        with self._changed:
            self._pending.pop(job, None)
            for queue in (self._urgent, self._waiting):
                for work in [work for work in queue if work.job is job]:
                    queue.remove(work)

    def _run(self) -> None:
        while works := self._next_works():
            began = monotonic()
            batch = self._next_batch(works)
            self._decode(batch)
            seconds = sum(piece.chunk.samples for _, piece in batch) / SAMPLE_RATE
            with self._changed:
                done = self._done
                self._done = replace(
                    done,
                    done_seconds=done.done_seconds + seconds,
                    busy_seconds=done.busy_seconds + monotonic() - began,
                    batches=done.batches + 1,
                    utterances=done.utterances + len(batch),
                )

    def _next_works(self) -> list[_Work]:
        """What may share the next batch, in the order of waiting; nothing when the engine is closed."""
        with self._changed:
            while not (self._closed or self._urgent or self._waiting):
                self._changed.wait()
            works = [*self._urgent, *self._waiting]
            if self._closed:
                for work in works:
                    self._end(work.job, ClosedError())
                return []
            return [work for work in works if work.key == works[0].key]

    def _next_batch(self, works: Sequence[_Work]) -> list[tuple[_Work, Piece]]:
        """An utterance of each, then a second one, until the batch is full; whose last one it is leaves the queue."""
        batch: list[tuple[_Work, Piece]] = []
        going = [*works]
        while going and len(batch) < self._batch_size:
            batch.extend([(work, next(work.pieces)) for work in going[: self._batch_size - len(batch)]])
            over = {id(work) for work, piece in batch if piece.seconds is not None}
            going = [work for work in going if id(work) not in over]
        with self._changed:
            served = {id(work): work for work, _ in batch}
            for queue in (self._urgent, self._waiting):
                mine = [work for work in queue if id(work) in served]
                others = [work for work in queue if id(work) not in served]
                queue.clear()
                queue.extend([*others, *(work for work in mine if id(work) not in over)])
        return batch

    def _decode(self, batch: Sequence[tuple[_Work, Piece]]) -> None:
        """Decodes utterances and gives what was found; a failure of one is not one of the others."""
        batch = [(work, piece) for work, piece in batch if work.job in self._pending]
        if not batch:
            return
        model, request = batch[0][0].model, batch[0][0].job.request
        search = model.searches[request.decoding]
        timed = [work.job.request.word_times for work, _ in batch]
        try:
            parts = model.recognizer.recognize_pieces([piece for _, piece in batch], search, timed, request.context)
        except Exception as error:
            if len(batch) > 1:
                for one in batch:
                    self._decode([one])
                return
            if not isinstance(error, KikitoriError):
                log.exception("an utterance of %s failed with %s", model.name, request.decoding)
            self._end(batch[0][0].job, error)
            return
        for (work, _), part in zip(batch, parts, strict=True):
            self._give(work, part)

    def _give(self, work: _Work, part: Part) -> None:
        if work.job not in self._pending:  # nobody waits, or an utterance before has failed
            return
        work.parts.append(part)
        try:
            for segment in work.stream.add(part):
                work.job.give(segment)
        except KikitoriError as error:
            self._end(work.job, error)
            return
        if part.seconds is not None:
            language, word_times = work.model.recognizer.loaded.trained_on.language, work.job.request.word_times
            self._end(work.job, transcript(work.parts, language, word_times))

    def _end(self, job: Job, result: Transcript | BaseException) -> None:
        self._forget(job)
        job.give(result)
