"""The seam to recognisers of other software: waveforms go in, plain texts come out.

Everything else is as for a recogniser of ours: how recordings are read, cut, batched, timed and scored.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from numpy.typing import NDArray

from kikitori.data.augment import Waveform
from kikitori.errors import AudioError, ConfigError, KikitoriError, ModelError, first_line
from kikitori.io.audio import SAMPLE_RATE
from kikitori.pieces import Audio, pieces
from kikitori.search.batch import Result
from kikitori.transcript import Part, part_of, transcript
from kikitori.types import Hypothesis, Transcript

MIN_SAMPLES = 400
"""What is shorter holds no speech, as for recognisers of ours."""


class Writer(Protocol):
    """Other software with a model."""

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        """What is said in each of a batch of 16 kHz mono waveforms, decoded together."""
        ...


@dataclass(frozen=True)
class Baseline:
    """A model that other software runs.

    Attributes:
        write: The software.
        name: Of the model, for reports.
        search: How it decodes, for reports.
        device: Where it computes, as torch names it.
        dtype: Arithmetic of its networks.
        longest_s: Seconds of the longest utterance that it takes.
        language: Code of the language of all recordings, where it was told.
        together: Most utterances that it decodes together, whatever it is given; None is no limit.
        identity: What decides its texts: versions, weights, settings.
    """

    write: Writer = field(repr=False)
    name: str
    search: str
    device: str
    dtype: str
    longest_s: float
    language: str | None = None
    together: int | None = None
    identity: dict[str, Any] = field(default_factory=dict)

    @property
    def decoder(self) -> None:
        """None of ours."""
        return

    @property
    def has_word_times(self) -> bool:
        """No."""
        return False

    def recognize(self, waveforms: Sequence[Waveform]) -> list[Result]:
        """What is found in each of a batch of 16 kHz mono waveforms, one hypothesis; or that it is too long.

        Raises:
            ModelError: The software fails.
        """
        results: list[Result] = [(Hypothesis((), ""),)] * len(waveforms)
        rows = []
        for row, waveform in enumerate(waveforms):
            if len(waveform) > self.longest_s * SAMPLE_RATE:
                what = f"{len(waveform) / SAMPLE_RATE:.1f} s are more than the model's {self.longest_s:g} s"
                results[row] = AudioError(what, remedy="split the recording")
            elif len(waveform) >= MIN_SAMPLES:
                rows.append(row)
        texts = self._written([waveforms[row] for row in rows]) if rows else []
        for row, text in zip(rows, texts, strict=True):
            results[row] = (Hypothesis((), text.strip()),)
        return results

    def _written(self, waveforms: Sequence[Waveform]) -> list[str]:
        try:
            return self.write(waveforms)
        except Exception as error:  # what may go wrong in other software has no end
            what = f"{self.search} fails ({first_line(error)})"
            raise ModelError(what, where=self.name, remedy="try --batch-size 1, or another model") from error

    def try_transcribe_many(
        self, audio: Iterable[Audio | NDArray[Any]], *, batch_size: int = 8, word_times: bool = False
    ) -> Iterator[Transcript | KikitoriError]:
        """Transcribes recordings in order, cut at pauses like those for our recognisers; errors in their place.

        Raises:
            ConfigError: Times of words are asked for.
        """
        if word_times:
            raise ConfigError("baselines give no times of words", where=self.name, remedy="leave them out")
        remaining = (piece for each in audio for piece in pieces(each, round(self.longest_s * SAMPLE_RATE)))
        parts: list[Part] = []
        while batch := list(islice(remaining, batch_size)):
            found = self.recognize([piece.chunk.waveform for piece in batch])
            for part in map(part_of, batch, found):
                parts.append(part)
                if part.seconds is not None:
                    yield transcript(parts, self.language, word_times)
                    parts = []
