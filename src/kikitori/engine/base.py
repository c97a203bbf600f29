"""The seam between what serves recognition and what recognises: requests go in, segments and transcripts come out.

An engine works in threads or processes of its own; who submits a request reads its job from an asyncio event loop.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kikitori.context import Context
from kikitori.data.augment import Waveform
from kikitori.errors import KikitoriError
from kikitori.io.audio import SAMPLE_RATE
from kikitori.types import DecoderName, Segment, Transcript

Kind = Literal["integration", "combination"]


class QueueFullError(KikitoriError):
    """More audio waits than an engine is to hold.

    Attributes:
        retry_after: Seconds after which there is likely to be room.
    """

    code = "queue_full"

    def __init__(self, retry_after: int) -> None:
        self.retry_after = retry_after
        super().__init__("too much audio is waiting", remedy=f"try again in {retry_after} s")


class ClosedError(KikitoriError):
    """The engine takes no more requests."""

    code = "closed"

    def __init__(self) -> None:
        super().__init__("the server is shutting down", remedy="try again later")


@dataclass(frozen=True)
class SearchCard:
    """A search of a model: whether its decoder writes the text (integration), and whether it takes hotwords."""

    name: str
    default: bool
    kind: Kind
    hotwords: bool = False


@dataclass(frozen=True)
class ModelCard:
    """What clients may know of a model.

    Attributes:
        name: By which requests name it.
        language: Of its transcripts; None where it finds it out.
        word_times: Whether words can have times.
        ctc: Whether `ctc_greedy` is offered, which is fast enough for text while somebody speaks.
        longest_s: Seconds of its longest utterance.
        searches: Its own first.
        prompt: Whether it reads a prompt.
        decoder: Which decoder writes, of what the model folder may hold; None without any.
    """

    name: str
    language: str | None
    word_times: bool
    ctc: bool
    longest_s: float
    searches: tuple[SearchCard, ...]
    prompt: bool = False
    decoder: DecoderName | None = None


@dataclass(frozen=True, eq=False)
class Request:
    """A recording to be transcribed.

    Attributes:
        blocks: Its 16 kHz mono samples, in blocks of any length.
        model: Name of the model.
        decoding: Name of one of its searches.
        word_times: Whether words shall have times.
        urgent: Whether it goes before those that wait.
        context: What is known of it beforehand.
    """

    blocks: Sequence[Waveform]
    model: str
    decoding: str
    word_times: bool = False
    urgent: bool = False
    context: Context = field(default_factory=Context)

    @property
    def seconds(self) -> float:
        """Its duration."""
        return sum(map(len, self.blocks)) / SAMPLE_RATE


@dataclass(frozen=True)
class Load:
    """How much an engine has to do, and has done.

    Attributes:
        jobs: Requests that wait or are being worked on.
        seconds: Audio of these.
        done_seconds: Audio that was recognised.
        busy_seconds: Time that this took.
        batches: Batches that were decoded.
        utterances: Utterances in these.
    """

    jobs: int
    seconds: float
    done_seconds: float
    busy_seconds: float
    batches: int
    utterances: int


class Job:
    """A request on its way; read from the event loop in which it was made, by one reader."""

    def __init__(self, request: Request, on_cancel: Callable[["Job"], None]) -> None:
        self.request = request
        self._on_cancel = on_cancel
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Segment | Transcript | BaseException] = asyncio.Queue()
        self._transcript: Transcript | None = None

    async def segments(self) -> AsyncGenerator[Segment]:
        """Each segment as soon as it is known; `transcript` is there when they are over.

        Raises:
            KikitoriError: The recording cannot be recognised, or not to its end.
        """
        while True:
            event = await self._events.get()
            match event:
                case Segment():
                    yield event
                case Transcript():
                    self._transcript = event
                    return
                case _:
                    raise event

    async def transcript(self) -> Transcript:
        """The transcript, when it is known.

        Raises:
            KikitoriError: The recording cannot be recognised.
        """
        if self._transcript is None:
            async for _ in self.segments():
                pass
        assert self._transcript is not None  # noqa: S101
        return self._transcript

    def cancel(self) -> None:
        """Nobody waits any more; what has not begun is not done. Harmless when it has ended."""
        self._on_cancel(self)

    def give(self, event: Segment | Transcript | BaseException) -> None:
        """What the engine has found, from any thread."""
        with suppress(RuntimeError):  # the event loop has been closed: nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class Engine(Protocol):
    """What recognises: in this process, in others, elsewhere."""

    @property
    def models(self) -> Sequence[ModelCard]:
        """The models at hand, the default one first."""
        ...

    def submit(self, request: Request) -> Job:
        """Takes a request from an event loop, without waiting.

        Raises:
            QueueFullError: Too much audio waits already.
            ClosedError: The engine was closed.
        """
        ...

    def check_room(self, seconds: float) -> None:
        """Whether `submit` would take so much audio now.

        Raises:
            QueueFullError: It would not.
            ClosedError: The engine was closed.
        """
        ...

    def load(self) -> Load:
        """How much there is to do."""
        ...

    def close(self) -> None:
        """Ends the engine; jobs that wait fail."""
        ...
