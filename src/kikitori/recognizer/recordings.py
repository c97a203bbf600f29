"""Recordings of any length in, transcripts out: cut at pauses, recognised in batches, put together again."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kikitori.context import Context, hotwords_of
from kikitori.data.augment import Waveform
from kikitori.errors import AudioError, ConfigError, KikitoriError, ModelError
from kikitori.io.audio import SAMPLE_RATE, read_audio, to_mono_16k
from kikitori.pieces import Audio, Piece, name_of, pieces
from kikitori.recognizer.batches import BatchRecognizer
from kikitori.search.options import Decoding
from kikitori.transcript import Part, part_of, segments, transcript
from kikitori.types import Segment, Transcript

LEAST_LONGEST = 8_000  # half a second: recordings are cut no shorter, whatever a model was trained on


@dataclass(frozen=True)
class Recognizer(BatchRecognizer):
    """A model with its default search, for recordings of any length; attributes are those of `BatchRecognizer`."""

    def transcribe(
        self,
        audio: Audio | NDArray[Any],
        *,
        decoding: Decoding | str | None = None,
        word_times: bool = False,
        prompt: str | None = None,
        hotwords: Sequence[str] | None = None,
    ) -> Transcript:
        """Transcribes one recording of any length.

        What is longer than the utterances that the model was trained on is cut at pauses, and no more than a few
        utterances of it are in memory at a time.

        Args:
            audio: A file, the bytes of a file, or 16 kHz mono samples.
            decoding: Search to use instead of the default, as of `load`.
            word_times: Whether words shall have times and confidences, from the CTC head or Whisper's cross-attention.
            prompt: Text that a Whisper-type model reads before each utterance, as if it had been said before: names,
                the topic, a way of writing. At most its last 223 labels are read. None takes that of the recogniser.
            hotwords: Names and terms, at most 10,000, to prefer to what sounds alike where the CTC head has evidence of
                them; case and punctuation do not matter. None takes those of the recogniser.

        Raises:
            AudioError: The audio cannot be read.
            ModelError: Word times are asked for, and there is neither a CTC head nor a Whisper decoder; or a prompt is
                given, and the model was not trained to read any; or hotwords, and there is no CTC head or the search
                takes none.
            ConfigError: The hotwords are too many, or none of them can be written.
        """
        return next(
            self.transcribe_many([audio], decoding=decoding, word_times=word_times, prompt=prompt, hotwords=hotwords)
        )

    def transcribe_many(
        self,
        audio: Iterable[Audio | NDArray[Any]],
        *,
        batch_size: int = 8,
        decoding: Decoding | str | None = None,
        word_times: bool = False,
        prompt: str | None = None,
        hotwords: Sequence[str] | None = None,
    ) -> Iterator[Transcript]:
        """Transcribes recordings in order, `batch_size` utterances at a time; other arguments as of `transcribe`.

        Raises:
            AudioError: A recording cannot be read; those before its batch have been given.
            ModelError: As of `transcribe`.
        """
        results = self.try_transcribe_many(
            audio, batch_size=batch_size, decoding=decoding, word_times=word_times, prompt=prompt, hotwords=hotwords
        )
        for result in results:
            if isinstance(result, KikitoriError):
                raise result
            yield result

    def try_transcribe_many(
        self,
        audio: Iterable[Audio | NDArray[Any]],
        *,
        batch_size: int = 8,
        decoding: Decoding | str | None = None,
        word_times: bool = False,
        prompt: str | None = None,
        hotwords: Sequence[str] | None = None,
    ) -> Iterator[Transcript | KikitoriError]:
        """As `transcribe_many`, but gives the error of a recording in its place and goes on."""
        remaining = (piece for each in audio for piece in pieces(each, self.longest))
        parts: list[Part] = []
        for part in self._parts(remaining, batch_size, decoding, word_times, self._context(prompt, hotwords)):
            parts.append(part)
            if part.seconds is not None:
                yield transcript(parts, self.loaded.trained_on.language, word_times)
                parts = []

    def transcribe_stream(
        self,
        audio: Audio | NDArray[Any],
        *,
        batch_size: int = 8,
        decoding: Decoding | str | None = None,
        word_times: bool = False,
        prompt: str | None = None,
        hotwords: Sequence[str] | None = None,
    ) -> Iterator[Segment]:
        """Transcribes one recording and gives each segment as soon as it is known, `batch_size` utterances at a time.

        The segments are those of `transcribe`. With a smaller batch they come sooner, and all of them later.

        Raises:
            AudioError: The audio cannot be read, or not to its end; the segments before have been given.
            ModelError: As of `transcribe`.
        """
        parts = self._parts(
            pieces(audio, self.longest), batch_size, decoding, word_times, self._context(prompt, hotwords)
        )
        return segments(parts, self.loaded.trained_on.language, word_times)

    @property
    def has_word_times(self) -> bool:
        """Whether words can have times: from a CTC head, or from attention that follows the speech, as in Whisper."""
        decoder = self.loaded.model.autoregressive
        return bool(self._acoustic.config.ctc_layers) or (decoder is not None and decoder.follows_speech)

    @property
    def longest(self) -> int:
        """The longest utterance, in samples, that recordings are cut into: as long as those of training."""
        most = round(self.loaded.trained_on.max_seconds * SAMPLE_RATE)
        return max(min(most, self._acoustic.encoder.max_samples or most), LEAST_LONGEST)

    def recognize_pieces(
        self,
        batch: Sequence[Piece],
        decoding: Decoding | str | None,
        word_times: Sequence[bool],
        context: Context | None = None,
    ) -> list[Part]:
        """What is found in utterances of any recordings, decoded together, with times of words where they are wanted.

        What is doubtful is treated as `guards` say; without a context it is that of the recogniser.
        """
        timed = [wanted or piece.chunk.joined for wanted, piece in zip(word_times, batch, strict=True)]
        waveforms = [piece.chunk.waveform for piece in batch]
        results = self._recognize(waveforms, self._options(decoding), self.guards, timed, context or self._context())
        return [*map(part_of, batch, results)]

    def _parts(
        self,
        remaining: Iterator[Piece],
        batch_size: int,
        decoding: Decoding | str | None,
        word_times: bool,
        context: Context,
    ) -> Iterator[Part]:
        """What is found in each piece of recordings."""
        if batch_size < 1:
            raise ConfigError(f"{batch_size} is no batch size", where="batch_size", remedy="use 1 or more")
        options = self._options(decoding)
        if word_times and not self.has_word_times:
            raise ModelError(
                "word times need a CTC head or a Whisper decoder", where=self.name, remedy="leave them out"
            )
        hotwords_of(self.loaded, context.hotwords, options, self.name)  # refuses them before any audio is read
        while batch := list(islice(remaining, batch_size)):
            yield from self.recognize_pieces(batch, options, [word_times] * len(batch), context)

    def read(self, audio: Audio | NDArray[Any]) -> Waveform:
        """A recording as 16 kHz mono samples.

        Raises:
            AudioError: It cannot be read, or is longer than the encoder can take.
        """
        waveform = to_mono_16k(audio, SAMPLE_RATE) if isinstance(audio, np.ndarray) else read_audio(audio)
        limit = self._acoustic.encoder.max_samples
        if limit is not None and len(waveform) > limit:
            raise AudioError(
                f"{len(waveform) / SAMPLE_RATE:.1f} s are more than the model's {limit / SAMPLE_RATE:g} s",
                where=name_of(audio),
                remedy="split the recording",
            )
        return waveform
