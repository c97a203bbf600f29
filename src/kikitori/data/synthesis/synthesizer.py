"""What a speech synthesiser is: text and how to say it go in, sound at the engine's own rate comes out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from kikitori.data.augment import Waveform


@dataclass(frozen=True)
class SpeechRequest:
    """What is to be said, and how.

    Attributes:
        speed: Against the engine's own, 1.2 is faster.
        pitch: Factor of the fundamental frequency, where the voice can change it.
        pause_s: Seconds between words, where the engine can make them.
    """

    text: str
    voice: str
    speed: float = 1.0
    pitch: float = 1.0
    pause_s: float = 0.0


@dataclass(frozen=True)
class Sound:
    """What an engine said, (samples,) at its own sampling rate.

    Attributes:
        reading: How the engine read the text, where it tells.
    """

    waveform: Waveform
    rate_hz: int
    reading: str | None = None


class Synthesizer(Protocol):
    """A speech synthesiser."""

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of the voices to use."""
        ...

    def version(self) -> str:
        """The engine's version, as it gives it."""
        ...

    def remedy(self, voice: str) -> str:
        """What to do where a voice is missing."""
        ...

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Sound | None]:
        """The sound of each request, None where the engine fails; the same whatever is said before it."""
        ...
