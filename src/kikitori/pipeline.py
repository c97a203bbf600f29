"""Recognisers in `transformers.pipeline`, for programs that are written for it.

    from transformers import pipeline
    import kikitori
    recognize = pipeline("automatic-speech-recognition", model=FOLDER, pipeline_class=kikitori.RecognizerPipeline)

The class is named in the call because the pipeline that transformers has for this task knows two kinds of models, CTC
with the best label of every frame and its own encoder-decoders: it could run none of our searches. So nothing of
transformers is replaced, and its own models go on as before.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from huggingface_hub import snapshot_download
from transformers import AutoModelForCTC, Pipeline

from kikitori.errors import ConfigError
from kikitori.io.audio import to_mono_16k
from kikitori.loading import load
from kikitori.model import AcousticModelConfig, SpeechLLMConfig
from kikitori.recognizer import Precision, Recognizer
from kikitori.search.options import Decoding
from kikitori.types import Segment, Transcript, Word

Timestamps = bool | Literal["word"]
"""Times of nothing, of segments (True) or of words."""


_Base: Any = Pipeline  # typed for models of transformers


class RecognizerPipeline(_Base):  # type: ignore[misc]
    """What `transformers.pipeline` makes of a model folder: `Recognizer.transcribe` in the form of transformers.

    A recording is a path, the bytes of a file, 16 kHz mono samples, or a dictionary with the samples under `array` or
    `raw` and their `sampling_rate`, as rows of `datasets` have it. It may be of any length.

    Args:
        model: The recogniser.
        task: Of transformers: `automatic-speech-recognition`.
        device: Where to compute; None leaves it where `kikitori.load` puts it.
        dtype: `auto` is the recogniser's own; else float32 or bfloat16.
        batch_size: Utterances decoded together.
        decoding: Search to use instead of the default, as of `kikitori.load`.

    Raises:
        ConfigError: There is no such arithmetic.
    """

    _load_processor = _load_tokenizer = _load_feature_extractor = False
    _load_image_processor = _load_video_processor = False

    def __init__(
        self,
        model: Recognizer,
        task: str = "automatic-speech-recognition",
        *,
        device: int | str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        batch_size: int = 8,
        decoding: Decoding | str | None = None,
    ) -> None:
        name = model.dtype if dtype == "auto" else str(dtype).removeprefix("torch.")
        if model.dtype == "int8" != name:
            raise ConfigError("the recogniser was loaded in int8", where="dtype", remedy=f"load it in {name}")
        if name not in ("float32", "bfloat16", model.dtype):
            raise ConfigError(f"no arithmetic {name}", where="dtype", remedy="use float32 or bfloat16")
        self.recognizer = replace(model, dtype=cast("Precision", name))
        self.model: Any = model.loaded.model
        self.task = task
        if device is not None:
            self.model.to(device)  # type: ignore[arg-type]
        self.device = self.model.acoustic.device
        self._batch_size, self._decoding = batch_size, decoding

    def __call__(
        self,
        inputs: Any,
        *,
        return_timestamps: Timestamps = False,
        batch_size: int | None = None,
        decoding: Decoding | str | None = None,
    ) -> Any:
        """Transcribes one recording, or many.

        Args:
            inputs: A recording, a list of recordings, or any other iterable of them, which is read as it is needed.
            return_timestamps: Whether to add times: True those of segments, `word` those of words.
            batch_size: Utterances decoded together.
            decoding: Search to use instead of the default.

        Returns:
            `text` and, with times, `chunks` of `text` and `timestamp`, a pair of seconds. For a list a list of these,
            for another iterable an iterator.

        Raises:
            AudioError: A recording cannot be read.
            ConfigError: Times are asked for of something else.
            ModelError: Times of words are asked for, and there is neither a CTC head nor a Whisper decoder.
        """
        if return_timestamps not in (False, True, "word"):
            raise ConfigError(
                f"no times of {return_timestamps!r}", where="return_timestamps", remedy="use True or 'word'"
            )
        one = isinstance(inputs, str | Path | bytes | Mapping) or hasattr(inputs, "dtype")
        results = self._results([inputs] if one else inputs, return_timestamps, batch_size, decoding)
        if one:
            return next(results)
        return list(results) if isinstance(inputs, list | tuple) else results

    def _results(
        self,
        recordings: Iterable[Any],
        times: Timestamps,
        batch_size: int | None,
        decoding: Decoding | str | None,
    ) -> Iterator[dict[str, Any]]:
        transcripts = self.recognizer.transcribe_many(
            map(_audio, recordings),
            batch_size=batch_size or self._batch_size,
            decoding=decoding or self._decoding,
            word_times=times == "word",
        )
        return (_result(transcript, times) for transcript in transcripts)

    def _sanitize_parameters(self, **parameters: Any) -> Any:
        raise NotImplementedError  # this and what follows: steps of transformers' own __call__

    preprocess = _forward = postprocess = _sanitize_parameters


def _audio(recording: Any) -> Any:
    if not isinstance(recording, Mapping):
        return recording
    samples = recording["array"] if "array" in recording else recording["raw"]
    return to_mono_16k(samples, recording["sampling_rate"])


def _result(transcript: Transcript, times: Timestamps) -> dict[str, Any]:
    if not times:
        return {"text": transcript.text}
    chunks = transcript.words if times == "word" else transcript.segments
    return {"text": transcript.text, "chunks": [*map(_chunk, chunks)]}


def _chunk(timed: Word | Segment) -> dict[str, Any]:
    return {"text": timed.word if isinstance(timed, Word) else timed.text, "timestamp": (timed.start, timed.end)}


class _OfAcousticModel:
    """What the pipeline's `AutoModelForCTC` makes of a folder: the whole recogniser, read by our own safe reader."""

    config_class: ClassVar[type] = AcousticModelConfig

    @classmethod
    def from_pretrained(cls, name: str, *, revision: str | None = None, token: Any = None, **_: Any) -> Recognizer:
        recognizer = load(name if Path(name).is_dir() else snapshot_download(name, revision=revision, token=token))
        return _WithConfig(**{field.name: getattr(recognizer, field.name) for field in fields(recognizer)})


class _WithConfig(Recognizer):
    """A recogniser with its network's configuration, in which transformers 5.17 looks for the revision."""

    @property
    def config(self) -> Any:
        return self.loaded.model.config


class _OfSpeechLLM(_OfAcousticModel):
    config_class = SpeechLLMConfig


AutoModelForCTC.register(AcousticModelConfig, _OfAcousticModel)
AutoModelForCTC.register(SpeechLLMConfig, _OfSpeechLLM)
