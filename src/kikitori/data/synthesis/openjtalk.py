"""Open JTalk: Japanese speech synthesis in this process, by the package pyopenjtalk-plus."""

import io
import math
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any

import numpy as np

from kikitori.data.synthesis.synthesizer import Sound, SpeechRequest
from kikitori.errors import ConfigError

_ONE_AT_A_TIME = Lock()  # Open JTalk keeps its state in global variables


@dataclass(frozen=True)
class OpenJTalk:
    """Open JTalk, through pyopenjtalk-plus: Japanese in kanji and kana, with the voice Mei."""

    voices: tuple[str, ...]

    def __post_init__(self) -> None:
        """Checks that it is installed.

        Raises:
            ConfigError: It is not.
        """
        _ = self._package

    def version(self) -> str:
        """Its package's version."""
        return f"pyopenjtalk {self._package.__version__}"

    def remedy(self, voice: str) -> str:
        """There is one voice."""
        return f"use mei, not {voice}"

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Sound | None]:
        """In this process, one at a time."""
        with _ONE_AT_A_TIME:
            return [self._speak(request) for request in requests]

    def _speak(self, request: SpeechRequest) -> Sound | None:
        if request.voice != "mei":
            return None
        try:
            features = self._package.run_frontend(request.text)
            samples, rate_hz = self._package.synthesize(
                self._package.make_label(features), speed=request.speed, half_tone=12 * math.log2(request.pitch)
            )
            reading = self._package.g2p(request.text, kana=True)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError):
            return None
        return Sound((samples / 32768.0).astype(np.float32), int(rate_hz), str(reading)) if len(samples) else None

    @cached_property
    def _package(self) -> Any:
        try:
            with redirect_stdout(io.StringIO()):  # it prints what it could do with more packages
                import pyopenjtalk
        except ImportError:
            raise ConfigError(
                "is not installed", where="openjtalk", remedy="pip install 'kikitori[synthesis]'"
            ) from None
        return pyopenjtalk
