"""The recogniser in use: audio in, transcripts out.

audio → batch → encoder → (CTC head | bridge → LLM) → labels → text. The same audio gives the same text whatever it is
batched with.
"""

import warnings
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

from kikitori.data.augment import Waveform
from kikitori.data.speech import pad_waveforms
from kikitori.errors import AudioError, ConfigError, KikitoriError, KikitoriWarning, ModelError
from kikitori.io.audio import SAMPLE_RATE, read_audio, to_mono_16k
from kikitori.kernels import limit_kernel_caches
from kikitori.model.acoustic_model import AcousticModel
from kikitori.model.adapters.folder import load_adapter
from kikitori.model.adapters.info import read_info
from kikitori.model.decoder.probe import check_decoding
from kikitori.model.device import Device, torch_device
from kikitori.model.encoder.family import Window
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import LoadedModel, load_model
from kikitori.pieces import Audio as Audio  # also for those who take it from here
from kikitori.pieces import Piece, name_of, pieces
from kikitori.search.batch import EncodedBatch
from kikitori.search.defaults import default_search, named_search
from kikitori.search.guards import NO_SPEECH, Guards, guarded
from kikitori.search.options import CTCGreedySearch, Decoding, GreedySearch, LexiconSearch
from kikitori.search.resources import ExternalModels
from kikitori.search.run import Result, check_search
from kikitori.search.windows import is_doubtful
from kikitori.transcript import Part, part_of, segments, transcript
from kikitori.types import Hypothesis, Segment, Transcript
from kikitori.word_times import with_words

BUNDLED = Path(__file__).parent / "models" / "mini-en"
CHECKOUT = Path(__file__).parents[2] / "models"
"""Where a checkout of the repository has models that are too large for the package."""
MIN_SAMPLES = 400  # one analysis window of 25 ms; what is shorter holds no speech
LEAST_LONGEST = 8_000  # half a second: recordings are cut no shorter, whatever a model was trained on
CAREFUL, PLAIN = Guards(on_runaway="ctc"), Guards()
"""What to do about doubtful transcripts: for reading, and for measuring a search as it is."""

Precision = Literal["float32", "bfloat16"]


def load(
    model: str | Path | None = None,
    *,
    device: Device = "auto",
    dtype: Precision = "float32",
    decoding: Decoding | str | None = None,
    adapter: str | Path | None = None,
    guards: Guards = CAREFUL,
    language: str | None = None,
    window: Window = "padded",
) -> "Recognizer":
    """Loads a recogniser.

    Args:
        model: A model folder, the name of one of ours (see `find_model`) or a hub id; None takes the bundled `mini-en`.
        device: `auto` takes a GPU where there is one.
        dtype: `float32` gives the same text whatever the batch; `bfloat16` is faster and does not promise that.
        decoding: Search to use by default, by its options, a YAML file, or a name, which stands for the folder's
            `decoding.yaml` where that has this search; None takes `decoding.yaml`, or what the model can do.
        adapter: Folder of an adapter that `kikitori adapt` made for this model, or of its run; None takes the model as
            it is. A `KikitoriWarning` tells of one that changes nothing.
        guards: What transcribing does about doubtful texts; the CTC text instead of a runaway LLM's by default.
        language: Code of the language of all recordings, such as `en`, for a model that knows several; None leaves it
            to the model.
        window: What a Whisper decoder reads behind each recording: `padded`, silence up to 30 s, or `speech`, half a
            second; what is doubtful then is decoded again with `padded`.

    Raises:
        ConfigError: There is no such search.
        ModelError: A folder is missing, incomplete or unsafe, the adapter belongs to another model, or the model does
            not know the language.
    """
    limit_kernel_caches()
    folder = find_model(model)
    own = Path(folder)
    chosen = named_search(decoding, own) if isinstance(decoding, str) else decoding or default_search(own)
    loaded = load_model(folder, language=language)
    name = Path(folder).name if Path(folder).is_dir() else str(folder)
    if adapter is not None:
        loaded = load_adapter(loaded, folder, adapter)
        name = f"{name} + {'/'.join(Path(adapter).resolve().parts[-2:])}"  # as of a run: RUN/adapter
    padded = None
    if window != "padded":
        if not isinstance(loaded.model, EncoderDecoder):
            raise ConfigError("the model has no Whisper decoder", where="window", remedy="leave it out")
        padded, loaded = loaded, replace(loaded, model=loaded.model.with_window(window))
    loaded.model.to(torch_device(device))  # type: ignore[arg-type]
    if loaded.model.speech_llm is not None:
        check_decoding(loaded.model.speech_llm.llm)
    if chosen is None:
        chosen = CTCGreedySearch() if loaded.model.autoregressive is None else GreedySearch()
    if adapter is not None and "decoder" not in chosen.needs and "encoder" not in read_info(adapter).components:
        unused = f"{adapter}: {chosen.search} uses nothing that it adapts; try greedy"
        warnings.warn(unused, KikitoriWarning, stacklevel=2)
    path = Path(folder) if Path(folder).is_dir() else None
    return Recognizer(loaded, chosen, name=name, dtype=dtype, folder=path, guards=guards, padded=padded)


def find_model(model: str | Path | None) -> str | Path:
    """The folder of a model named without a slash: one here, in the package (`mini-en`) or in a checkout's `models/`.

    None is the bundled model. Whatever is none of them is left as it is: a path, or the id of a model on the hub.
    """
    if model is None:
        return BUNDLED
    if Path(model).is_dir() or len(Path(model).parts) != 1:
        return model
    ours = (folder / model for folder in (BUNDLED.parent, CHECKOUT))
    return next((folder for folder in ours if (folder / "config.json").is_file()), model)


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
        padded: The same model with Whisper's window of 30 s, where it reads a shorter one.
    """

    loaded: LoadedModel
    decoding: Decoding
    name: str
    dtype: Precision = "float32"
    folder: Path | None = None
    guards: Guards = CAREFUL
    padded: LoadedModel | None = None

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
        self, audio: Audio | NDArray[Any], *, decoding: Decoding | str | None = None, word_times: bool = False
    ) -> Transcript:
        """Transcribes one recording of any length.

        What is longer than the utterances that the model was trained on is cut at pauses, and no more than a few
        utterances of it are in memory at a time.

        Args:
            audio: A file, the bytes of a file, or 16 kHz mono samples.
            decoding: Search to use instead of the default, as of `load`.
            word_times: Whether words shall have times and confidences, from the CTC head or Whisper's cross-attention.

        Raises:
            AudioError: The audio cannot be read.
            ModelError: Word times are asked for, and there is neither a CTC head nor a Whisper decoder.
        """
        return next(self.transcribe_many([audio], decoding=decoding, word_times=word_times))

    def transcribe_many(
        self,
        audio: Iterable[Audio | NDArray[Any]],
        *,
        batch_size: int = 8,
        decoding: Decoding | str | None = None,
        word_times: bool = False,
    ) -> Iterator[Transcript]:
        """Transcribes recordings in order, `batch_size` utterances at a time.

        Raises:
            AudioError: A recording cannot be read; those before its batch have been given.
            ModelError: Word times are asked for, and there is neither a CTC head nor a Whisper decoder.
        """
        results = self.try_transcribe_many(audio, batch_size=batch_size, decoding=decoding, word_times=word_times)
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
    ) -> Iterator[Transcript | KikitoriError]:
        """As `transcribe_many`, but gives the error of a recording in its place and goes on."""
        remaining = (piece for each in audio for piece in pieces(each, self.longest))
        parts: list[Part] = []
        for part in self._parts(remaining, batch_size, decoding, word_times):
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
    ) -> Iterator[Segment]:
        """Transcribes one recording and gives each segment as soon as it is known, `batch_size` utterances at a time.

        The segments are those of `transcribe`. With a smaller batch they come sooner, and all of them later.

        Raises:
            AudioError: The audio cannot be read, or not to its end; the segments before have been given.
            ModelError: Word times are asked for, and there is neither a CTC head nor a Whisper decoder.
        """
        parts = self._parts(pieces(audio, self.longest), batch_size, decoding, word_times)
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

        Without other `guards`, what the search finds is flagged and kept; recordings without speech have no text.
        """
        return self._recognize(waveforms, self._options(decoding), guards, [False] * len(waveforms))

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
    def encode(self, waveforms: Sequence[Waveform]) -> EncodedBatch:
        """Encode one batch of 16 kHz mono waveforms, each of 400 samples or more."""
        acoustic = self._acoustic
        padded, num_samples = pad_waveforms(waveforms)
        with self.arithmetic():
            encoded = self.loaded.model.encode(padded.to(acoustic.device), num_samples.to(acoustic.device))
        return EncodedBatch(self.loaded, self.external_models, waveforms, encoded, self._decoder_models)

    def arithmetic(self) -> torch.autocast:
        """The context in which the networks compute in `dtype`."""
        return torch.autocast(self._acoustic.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def _parts(
        self, remaining: Iterator[Piece], batch_size: int, decoding: Decoding | str | None, word_times: bool
    ) -> Iterator[Part]:
        """What is found in each piece of recordings."""
        if batch_size < 1:
            raise ConfigError(f"{batch_size} is no batch size", where="batch_size", remedy="use 1 or more")
        options = self._options(decoding)
        if word_times and not self.has_word_times:
            raise ModelError(
                "word times need a CTC head or a Whisper decoder", where=self.name, remedy="leave them out"
            )
        while batch := list(islice(remaining, batch_size)):
            timed = [word_times or each.chunk.joined for each in batch]
            results = self._recognize([each.chunk.waveform for each in batch], options, self.guards, timed)
            yield from map(part_of, batch, results)

    @torch.inference_mode()
    def _recognize(
        self, waveforms: Sequence[Waveform], options: Decoding, guards: Guards, timed: Sequence[bool]
    ) -> list[Result]:
        """What the search finds in each waveform; in those that are `timed` with times of words, if there can be."""
        results: list[Result] = [(Hypothesis(labels=(), text="", score=0.0),)] * len(waveforms)
        rows = [row for row, waveform in enumerate(waveforms) if len(waveform) >= MIN_SAMPLES]
        if rows:
            with self.arithmetic():
                batch = self.encode([waveforms[row] for row in rows])
                found = with_words(batch, guarded(batch, options, guards), [timed[row] for row in rows])
            for row, result in zip(rows, found, strict=True):
                results[row] = result
            if self.padded is not None and options.autoregressive:
                again = [row for row in rows if self._is_doubtful(results[row], waveforms[row])]
                other = replace(self, loaded=self.padded, padded=None)
                timed = [timed[row] for row in again]
                mended = other._recognize([waveforms[row] for row in again], options, guards, timed) if again else []
                for row, result in zip(again, mended, strict=True):
                    results[row] = result
        return results

    def _is_doubtful(self, result: Result, waveform: Waveform) -> bool:
        """Whether what was found behind a short window is to be decoded again at 30 s."""
        if isinstance(result, AudioError) or NO_SPEECH in result[0].warnings:
            return False
        return is_doubtful(result[0], len(waveform) / SAMPLE_RATE)

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
