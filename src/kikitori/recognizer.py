"""The recogniser in use: audio in, transcripts out.

audio → batch → encoder → (CTC head | bridge → LLM) → labels → text. The same audio gives the same text whatever it is
batched with.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.align.calibration import AS_IS, WordCalibration
from kikitori.context import Context, hotwords_of, with_prompt
from kikitori.data.augment import Waveform
from kikitori.data.speech import pad_waveforms
from kikitori.errors import AudioError, ConfigError, KikitoriError, ModelError
from kikitori.io.audio import SAMPLE_RATE, read_audio, to_mono_16k
from kikitori.model.acoustic_model import AcousticModel
from kikitori.model.encoder.rows import encode_rows, rows_in_turn
from kikitori.model.folder import LoadedModel
from kikitori.pieces import Audio as Audio  # also for those who take it from here
from kikitori.pieces import Piece, name_of, pieces
from kikitori.scorers.hotwords.phrases import Hotwords
from kikitori.search.batch import EncodedBatch, Result
from kikitori.search.check import check_search
from kikitori.search.defaults import named_search
from kikitori.search.guards import NO_SPEECH, Guards, guarded
from kikitori.search.options import CTCGreedySearch, Decoding, LexiconSearch
from kikitori.search.resources import ExternalModels
from kikitori.search.windows import is_doubtful
from kikitori.transcript import Part, part_of, segments, transcript
from kikitori.types import Hypothesis, Segment, Transcript
from kikitori.word_times import with_words

MIN_SAMPLES = 400  # one analysis window of 25 ms; what is shorter holds no speech
LEAST_LONGEST = 8_000  # half a second: recordings are cut no shorter, whatever a model was trained on
CAREFUL, PLAIN = Guards(on_runaway="ctc"), Guards(on_runaway="keep", on_no_speech="keep")
"""What to do about doubtful transcripts: for reading, and for measuring a search as it is."""

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recognizer:
    """A model with its default search.

    Attributes:
        loaded: Network, label units and what its training data were like.
        decoding: Default search.
        name: Name of the model, for reports.
        dtype: Arithmetic of the networks.
        folder: Where the recogniser lies, None for the hub: its `lm/` and prior are found there.
        guards: What transcribing does about doubtful texts.
        words: How late the model writes labels, and how its confidences relate to being right.
        padded: The same model with Whisper's window of 30 s, where it reads a shorter one.
        prompt: Text that a Whisper-type model reads before each utterance, such as names or the topic.
        hotwords: Names and terms that searches with a CTC head shall prefer where they are heard.
    """

    loaded: LoadedModel
    decoding: Decoding
    name: str
    dtype: Precision = "float32"
    folder: Path | None = None
    guards: Guards = CAREFUL
    words: WordCalibration = AS_IS
    padded: LoadedModel | None = None
    prompt: str = ""
    hotwords: tuple[str, ...] = ()

    @cached_property
    def external_models(self) -> ExternalModels:
        """Language models and priors that join in search, over the labels of the CTC head."""
        return ExternalModels(self.folder, self.loaded.ctc_units, self._acoustic.device)

    @cached_property
    def _decoder_models(self) -> ExternalModels | None:
        if self.loaded.own_ctc_units is None:
            return None
        return ExternalModels(None, self.loaded.units, self._acoustic.device)

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

    def recognize(self, waveforms: Sequence[Waveform], decoding: Decoding | str | None = None) -> list[Hypothesis]:
        """Decodes one batch of 16 kHz mono waveforms; returns the best hypothesis of each.

        Raises:
            AudioError: One of them is too long for the LLM, or its numbers are not finite.
        """
        hypotheses = []
        for result in self.try_recognize(waveforms, decoding):
            if isinstance(result, AudioError):
                raise result
            hypotheses.append(result[0])
        return hypotheses

    def try_recognize(
        self, waveforms: Sequence[Waveform], decoding: Decoding | str | None = None, guards: Guards = PLAIN
    ) -> list[Result]:
        """As `recognize`, but gives all hypotheses of a waveform, or its error in its place.

        Without other `guards`, whatever the search finds is flagged and kept, in recordings without speech too.
        """
        return self._recognize(waveforms, self._options(decoding), guards, [False] * len(waveforms), self._context())

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

    @property
    def phones(self) -> list[str]:
        """What the phone head writes, in the order of its outputs; empty without one."""
        return [*self._acoustic.config.phones]

    @torch.inference_mode()
    def ctc_log_probs(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the CTC head (batch, frames, labels + 1), blank last, and valid frames (batch,).

        Raises:
            ModelError: There is no CTC head.
        """
        self._options(CTCGreedySearch())
        with self.arithmetic():
            return self._acoustic.log_probs(self.encode(waveforms).encoded)

    @torch.inference_mode()
    def phone_log_probs(self, waveforms: Sequence[Waveform]) -> tuple[Tensor, Tensor]:
        """The same of the phone head: (batch, outputs, phones + 1) and valid outputs (batch,).

        Raises:
            ModelError: There is no phone head.
        """
        self._options(LexiconSearch())
        with self.arithmetic():
            return self._acoustic.phone_log_probs(self.encode(waveforms).encoded)

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[Waveform], prompt: str = "", hotwords: Hotwords | None = None) -> EncodedBatch:
        """Encode one batch of 16 kHz mono waveforms, each of 400 samples or more; the decoder reads the prompt.

        Raises:
            ModelError: The model was not trained to read a prompt.
        """
        loaded = with_prompt(self.loaded, prompt, self.name)
        acoustic = self._acoustic
        padded, num_samples = pad_waveforms(waveforms)
        padded, num_samples = padded.to(acoustic.device), num_samples.to(acoustic.device)
        with self.arithmetic():
            rows = rows_in_turn(acoustic.encoder, padded)
            encoded = encode_rows(self.loaded.model.encode, padded, num_samples, rows)
        return EncodedBatch(loaded, self.external_models, waveforms, encoded, self._decoder_models, hotwords)

    def _context(self, prompt: str | None = None, hotwords: Sequence[str] | None = None) -> Context:
        """What is given, else what is the recogniser's own."""
        if isinstance(hotwords, str):
            raise ConfigError("a text is no list of phrases", where="hotwords", remedy=f"give [{hotwords[:30]!r}]")
        phrases = self.hotwords if hotwords is None else tuple(hotwords)
        return Context(self.prompt if prompt is None else prompt, phrases)

    def arithmetic(self) -> torch.autocast:
        """The context in which the networks compute in `dtype`."""
        return torch.autocast(self._acoustic.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

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

    @torch.inference_mode()
    def _recognize(
        self, waveforms: Sequence[Waveform], options: Decoding, guards: Guards, timed: Sequence[bool], context: Context
    ) -> list[Result]:
        """What the search finds in each waveform; in those that are `timed` with times of words, if there can be."""
        results: list[Result] = [(Hypothesis(labels=(), text="", score=0.0),)] * len(waveforms)
        rows = [row for row, waveform in enumerate(waveforms) if len(waveform) >= MIN_SAMPLES]
        if rows:
            hotwords = hotwords_of(self.loaded, context.hotwords, options, self.name)
            with self.arithmetic():
                batch = self.encode([waveforms[row] for row in rows], context.prompt, hotwords)
                found = with_words(batch, guarded(batch, options, guards), [timed[row] for row in rows], self.words)
            for row, result in zip(rows, found, strict=True):
                results[row] = result
            if self.padded is not None and options.autoregressive:
                again = [row for row in rows if self._is_doubtful(results[row], waveforms[row])]
                other = replace(self, loaded=self.padded, padded=None)
                timed = [timed[row] for row in again]
                doubtful = [waveforms[row] for row in again]
                mended = other._recognize(doubtful, options, guards, timed, context) if again else []
                for row, result in zip(again, mended, strict=True):
                    results[row] = result
        return results

    def _is_doubtful(self, result: Result, waveform: Waveform) -> bool:
        """Whether what was found behind a short window is to be decoded again at 30 s."""
        if isinstance(result, AudioError) or NO_SPEECH in result[0].warnings:
            return False
        return is_doubtful(result[0], len(waveform) / SAMPLE_RATE)

    @property
    def device(self) -> str:
        """Where it computes, as torch names it."""
        return str(self._acoustic.device)

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

    @property
    def _acoustic(self) -> AcousticModel:
        return self.loaded.model.acoustic

    def _options(self, decoding: Decoding | str | None) -> Decoding:
        options = named_search(decoding, self.folder) if isinstance(decoding, str) else decoding or self.decoding
        model = self.loaded.model
        check_search(options, model, self.name, own_ctc_units=self.loaded.own_ctc_units is not None)
        if model.autoregressive is not None and model.autoregressive.reads_drafts and "decoder" in options.needs:
            check_search(self.external_models.draft_search, model, self.name)
        return options
