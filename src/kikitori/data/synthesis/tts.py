"""Speech synthesisers: espeak-ng, flite, festival and Open JTalk behind the Protocol `Synthesizer`.

Programs get the text by standard input or in a file, never on a command line, and no shell is involved. None of them
is part of kikitori: docs/synthetic_speech.md names their licences and those of their voices.
"""

import io
import math
import re
import shutil
import subprocess
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile as sf

from kikitori.data.synthesis.openjtalk import OpenJTalk
from kikitori.data.synthesis.synthesizer import Sound, SpeechRequest, Synthesizer
from kikitori.errors import ConfigError

ENGINES = ("espeak-ng", "flite", "festival", "openjtalk")
TIMEOUT_S = 60.0  # for a sentence, which takes a tenth of a second

_VOICE = re.compile(r"[A-Za-z0-9][\w+.-]*")
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "—": ", ", "–": ", ", "…": "..."})


def load_engine(name: str, voices: Sequence[str] = (), *, language: str = "en") -> Synthesizer:
    """One of `ENGINES`, whose voices (by default some that suit the language) are made sure of by a word each.

    Raises:
        ConfigError: There is no such engine, it is not installed, has no such voice or not that language.
    """
    for voice in voices:
        if not _VOICE.fullmatch(voice):
            raise ConfigError("not the name of a voice", where=f"{name}:{voice}", remedy="see docs/synthetic_speech.md")
    engine: Synthesizer
    match name:
        case "espeak-ng":
            engine = EspeakNG(_program(name), tuple(voices) or _espeak_voices(language))
        case "flite":
            _only(name, "en", language)
            engine = Flite(_program(name), tuple(voices) or ("slt", "rms", "awb", "kal16"))
        case "festival":
            _only(name, "en", language)
            engine = Festival(_program(name), tuple(voices) or ("cmu_us_slt_arctic_hts", "kal_diphone"))
        case "openjtalk":
            _only(name, "ja", language)
            engine = OpenJTalk(tuple(voices) or ("mei",))
        case _:
            raise ConfigError("no such engine", where=name, remedy=f"use {', '.join(ENGINES)}")
    word = "はい" if language == "ja" else "yes"
    for voice, sound in zip(
        engine.voices, engine.speak([SpeechRequest(word, voice) for voice in engine.voices]), strict=True
    ):
        if sound is None:
            raise ConfigError(f"does not speak with the voice {voice}", where=name, remedy=engine.remedy(voice))
    return engine


@dataclass(frozen=True)
class EspeakNG:
    """eSpeak NG: formant synthesis, a hundred languages, voices such as `en-us+f3`."""

    program: str
    voices: tuple[str, ...]

    def version(self) -> str:
        """What `espeak-ng --version` says."""
        return _output([self.program, "--version"]).partition("  Data at")[0]

    def remedy(self, voice: str) -> str:
        """Voices are part of the program."""
        return f"see espeak-ng --voices and espeak-ng --voices=variant, not {voice}"

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Sound | None]:
        """One process a request: it needs 10 ms to start."""
        known = _output([self.program, "--voices=variant"]).split()  # of others it takes the voice without a variant
        with TemporaryDirectory() as folder:
            file = Path(folder, "sound.wav")
            return [self._speak(request, file) if _has_variant(request.voice, known) else None for request in requests]

    def _speak(self, request: SpeechRequest, file: Path) -> Sound | None:
        speed = min(max(round(175 * request.speed), 80), 450)  # words per minute
        pitch = min(max(round(50 + 73 * math.log2(request.pitch)), 0), 99)  # measured: 73 steps an octave
        gap = round(request.pause_s / 0.0125)
        options = {"-b": "1", "-v": request.voice, "-s": speed, "-p": pitch, "-g": gap, "-w": file}
        command = [self.program, "--stdin", *(str(part) for option in options.items() for part in option)]
        # [[ begins a text in phonemes.
        _run(command, request.text.replace("[[", "[ ["))
        return _read(file)


@dataclass(frozen=True)
class Flite:
    """CMU Flite: the voices slt, rms and awb of statistical, kal and kal16 of diphone synthesis."""

    program: str
    voices: tuple[str, ...]

    def version(self) -> str:
        """What `flite --version` says."""
        return next((line for line in _output([self.program, "--version"]).splitlines() if "version:" in line), "")

    def remedy(self, voice: str) -> str:
        """Voices are part of the program."""
        return f"see flite -lv, not {voice}"

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Sound | None]:
        """One process a request: it needs 15 ms to start."""
        known = _output([self.program, "-lv"]).split()  # of one it does not know it takes another
        with TemporaryDirectory() as folder:
            file = Path(folder, "sound.wav")
            return [self._speak(request, file) if request.voice in known else None for request in requests]

    def _speak(self, request: SpeechRequest, file: Path) -> Sound | None:
        text = file.with_suffix(".txt")
        text.write_text(_ascii(request.text), encoding="ascii")
        stretch, shift = f"duration_stretch={1 / request.speed:.4f}", f"f0_shift={request.pitch:.4f}"
        settings = ["-voice", request.voice, "--setf", stretch, "--setf", shift]
        _run([self.program, *settings, "-f", str(text), "-o", str(file)])
        return _read(file)


@dataclass(frozen=True)
class Festival:
    """Festival: the voices that are installed, such as kal_diphone and cmu_us_slt_arctic_hts."""

    program: str
    voices: tuple[str, ...]

    def version(self) -> str:
        """What `festival --version` says."""
        return _output([self.program, "--version"])

    def remedy(self, voice: str) -> str:
        """The packages of Debian that have the two usual voices."""
        package = {"kal_diphone": "festvox-kallpc16k", "cmu_us_slt_arctic_hts": "festvox-us-slt-hts"}.get(voice)
        return f"apt install {package}" if package else "see (voice.list) in festival"

    def speak(self, requests: Sequence[SpeechRequest]) -> list[Sound | None]:
        """All requests in one process, whose start takes longer than a sentence; a failing one is tried alone."""
        sounds = self._speak(requests)
        if len(requests) > 1:
            sounds = [sound or self._speak([request])[0] for sound, request in zip(sounds, requests, strict=True)]
        return sounds

    def _speak(self, requests: Sequence[SpeechRequest]) -> list[Sound | None]:
        with TemporaryDirectory() as folder:
            script = Path(folder, "say.scm")
            files = [Path(folder, f"{number}.wav") for number in range(len(requests))]
            script.write_text(
                "".join(festival_command(request, file) for request, file in zip(requests, files, strict=True)), "ascii"
            )
            _run([self.program, "-b", str(script)], sentences=len(requests))
            return [_read(file) for file in files]


def festival_command(request: SpeechRequest, file: Path) -> str:
    """The expression that has Festival say a request into a file; an error in it does not end the script."""
    f0 = f"(target_f0_mean {105.0 * request.pitch:.1f}) (target_f0_std 14) (model_f0_mean 170) (model_f0_std 34)"
    rate = f'(set! hts_engine_params (cons \'("-r" {request.speed:.4f}) hts_engine_params))'
    # To choose a voice sets all of this anew, so nothing of one request reaches the next.
    steps = (
        f"(voice_{request.voice})",
        f"(Parameter.set 'Duration_Stretch {1 / request.speed:.4f})",
        f"(if (boundp 'hts_engine_params) {rate})",
        f"(set! int_lr_params '({f0}))",
        f"(utt.save.wave (utt.synth (Utterance Text {scheme_string(request.text)})) {scheme_string(str(file))} 'riff)",
    )
    return f"(unwind-protect (begin {' '.join(steps)}) nil)\n"


def scheme_string(text: str) -> str:
    """A text as a string of Scheme, in ASCII on one line."""
    plain = _ascii(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'


def _espeak_voices(language: str) -> tuple[str, ...]:
    men, women = [f"m{number}" for number in range(1, 8)], [f"f{number}" for number in range(1, 6)]
    if language != "en":
        return tuple(f"{language}+{variant}" for variant in (*men, *women))
    named = ("Alex", "Alicia", "Andrea", "Andy", "Annie", "Denis", "Gene", "Jacky", "Lee", "Mike", "steph", "travis")
    others = ("en-gb", "en-gb-scotland", "en-gb-x-rp", "en-us-nyc")
    return (
        *(f"en-us+{variant}" for variant in (*men, *women, *named)),
        *(f"{accent}+{variant}" for accent in others for variant in ("m3", "m7", "f2", "f5")),
    )


def _has_variant(voice: str, known: Sequence[str]) -> bool:
    variant = voice.partition("+")[2]
    return not variant or f"!v/{variant}" in known


def _only(engine: str, spoken: str, language: str) -> None:
    if language != spoken:
        raise ConfigError(f"speaks '{spoken}' only, not '{language}'", where=engine, remedy="use espeak-ng")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise ConfigError("is not installed", where=name, remedy=f"apt install {name}")
    return found


def _run(command: Sequence[str], text: str = "", *, sentences: int = 1) -> None:
    """Runs a program for the file that it writes: that is there, and good, or else the program failed."""
    try:
        subprocess.run(  # noqa: S603  (no shell, and no text among the arguments)
            command, input=text.encode(), capture_output=True, timeout=TIMEOUT_S * sentences, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return


def _output(command: Sequence[str]) -> str:
    try:
        found = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return found.stdout.decode(errors="replace").strip()


def _read(file: Path) -> Sound | None:
    """The sound in a file, which is deleted; None if it holds none."""
    try:
        samples, rate_hz = sf.read(io.BytesIO(file.read_bytes()), dtype="float32", always_2d=True)
        file.unlink()
    except (OSError, sf.SoundFileError):
        return None
    waveform = samples.mean(axis=1)
    return Sound(waveform, rate_hz) if waveform.any() and np.isfinite(waveform).all() else None


def _ascii(text: str) -> str:
    """A text as engines of the last century read it: typographical marks made plain, accents and the rest left out."""
    plain = unicodedata.normalize("NFKD", text.translate(_PLAIN)).encode("ascii", "ignore").decode()
    return "".join(character if character.isprintable() else " " for character in plain)
