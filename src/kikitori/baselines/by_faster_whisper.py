"""Whisper folders of CTranslate2, run by faster-whisper (an extra), greedily and one recording at a time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from kikitori.baselines.base import Baseline
from kikitori.data.augment import Waveform
from kikitori.errors import ConfigError, ModelError, first_line
from kikitori.io.extras import require
from kikitori.io.untrusted import check_files
from kikitori.model.device import Device, torch_device
from kikitori.model.published.ctranslate2 import MODEL, is_ctranslate2
from kikitori.recognizer import Precision

PACKAGE = "faster-whisper"
WHISPER_S = 30.0


@dataclass(frozen=True, eq=False)
class _FasterWhisper:
    model: Any
    language: str | None

    def __call__(self, waveforms: Sequence[Waveform]) -> list[str]:
        return [self._text(waveform) for waveform in waveforms]

    def _text(self, waveform: Waveform) -> str:
        segments, _ = self.model.transcribe(
            waveform,
            language=self.language,
            beam_size=1,
            temperature=0.0,
            condition_on_previous_text=False,
            without_timestamps=True,
        )
        return "".join(segment.text for segment in segments)


def load_faster_whisper(
    folder: str, *, device: Device = "auto", dtype: Precision = "float32", language: str | None = None
) -> Baseline:
    """A Whisper folder of CTranslate2, as faster-whisper runs it without fallback and without a voice detector.

    Raises:
        ConfigError: faster-whisper is not installed, or the model does not know the language.
        ModelError: There is no such folder, or it is no Whisper of CTranslate2.
    """
    require("faster_whisper", "ct2: models need", where=folder)
    path = Path(folder)
    if not is_ctranslate2(path) or not (path / "tokenizer.json").is_file():
        what = f"no Whisper of CTranslate2 ({MODEL}, tokenizer.json)"
        raise ModelError(what, where=folder, remedy="name a folder that ct2-transformers-converter wrote")
    check_files(path)
    from faster_whisper import WhisperModel

    where = torch_device(device)
    try:
        model = WhisperModel(
            folder, device=where, compute_type=dtype, cpu_threads=torch.get_num_threads(), local_files_only=True
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise ModelError(f"cannot be loaded ({first_line(error)})", where=folder, remedy="copy it again") from None
    if language is not None and language not in model.supported_languages:
        raise ConfigError(f"the model does not know '{language}'", where="--language", remedy="leave it out")
    with (path / MODEL).open("rb") as content:
        weights = hashlib.file_digest(content, "sha256").hexdigest()
    software = f"faster-whisper {version(PACKAGE)}"
    return Baseline(
        write=_FasterWhisper(model, language),
        name=path.name,
        search=software,
        device=where,
        dtype=dtype,
        longest_s=WHISPER_S,
        language=language if model.model.is_multilingual else "en",
        together=1,
        identity={"weights": weights, "software": software, "dtype": dtype, "language": language},
    )
