"""`kikitori doctor`: what of kikitori works on this machine, what is missing, and how to get it."""

import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

import kikitori
from kikitori import compiled, loading
from kikitori.errors import KikitoriError
from kikitori.model.whisper.int8 import Int8Linear, is_exact

EXTRAS = {
    "audio": {"av": "m4a, mp4, webm and damaged MP3 files are read"},
    "train": {"peft": "LoRA: kikitori adapt, lora in recipes", "matplotlib": "kikitori picture, loss curves"},
    "synthesis": {"pyopenjtalk": "Japanese pronunciations and speech"},
    "baselines": {"faster_whisper": "kikitori evaluate --model ct2:FOLDER"},
}
"""Modules of the optional parts of the package, and what each is for."""
PROGRAMS = {
    "espeak-ng": ("pronunciations and synthetic speech of a hundred languages", "espeak-ng"),
    "flite": ("English synthetic speech", "flite"),
    "ffmpeg": ("converting recordings that are in no format that is read", "ffmpeg"),
}
"""Programs that some commands call, what for, and the package of Debian and Ubuntu that has each."""
LOW_DISK_GB = 1.0
SAMPLE = "2136-5147-0021.opus"


@dataclass(frozen=True)
class Check:
    """What was found about one thing.

    Attributes:
        name: What was looked at.
        found: What was found, in words.
        remedy: What to do about it; None if all is well.
        needed: Whether nothing works without it.
    """

    name: str
    found: str
    remedy: str | None = None
    needed: bool = False


def checks() -> Iterator[Check]:
    """All checks, one after the other; the last one recognises a recording."""
    yield Check("kikitori", f"{kikitori.__version__}, Python {platform.python_version()}")
    yield Check("torch", f"{version('torch')}, transformers {version('transformers')}")
    yield _device()
    yield _threads()
    yield _bfloat16()
    yield _int8()
    yield from _packages()
    yield from _programs()
    yield _kernels()
    yield _disk()
    yield _sample()


def seconds_of(work: Callable[[], object], repeats: int = 3) -> float:
    """The shortest time that some work takes, in seconds, after a first go."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def _device() -> Check:
    if torch.cuda.is_available():
        return Check("device", f"GPU {torch.cuda.get_device_name()}")
    return Check("device", "CPU; torch sees no GPU")


def _threads() -> Check:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = torch.get_num_threads()
    found = f"{threads} of {cores} cores"
    if threads < cores:
        return Check("threads", found, f"set OMP_NUM_THREADS={cores}, unless other work needs them")
    if threads > cores:
        return Check("threads", found, f"set OMP_NUM_THREADS={cores}: more threads than cores wait for each other")
    return Check("threads", found)


def _bfloat16() -> Check:
    values, weights = torch.randn(64, 256), torch.randn(256, 256)
    half, half_weights = values.bfloat16(), weights.bfloat16()
    ratio = seconds_of(lambda: values @ weights) / seconds_of(lambda: half @ half_weights)
    return _beside_float32("bfloat16", ratio)


def _int8() -> Check:
    if not is_exact():
        return Check("int8", "this processor adds 8-bit products with loss: keep float32")
    values, layer = torch.randn(64, 512), torch.nn.Linear(512, 512)
    quick = Int8Linear(layer)
    with torch.inference_mode():
        ratio = seconds_of(lambda: layer(values)) / seconds_of(lambda: quick(values))
    return _beside_float32("int8", ratio)


def _beside_float32(dtype: str, ratio: float) -> Check:
    advice = f"--dtype {dtype} is worth a try" if ratio >= 1.2 else "keep float32"
    return Check(dtype, f"{ratio:.1f} times as fast as float32: {advice}")


def _packages() -> Iterator[Check]:
    for extra, modules in EXTRAS.items():
        for module, use in modules.items():
            there = find_spec(module) is not None
            yield Check(
                module, use if there else f"missing; {use}", None if there else f"pip install 'kikitori[{extra}]'"
            )
    there = find_spec("silero_vad") is not None
    found = "long recordings are cut at pauses" if there else "missing; long recordings are cut by level"
    yield Check("silero-vad", found, None if there else "pip install silero-vad")


def _programs() -> Iterator[Check]:
    for program, (use, package) in PROGRAMS.items():
        path = shutil.which(program)
        remedy = None if path else f"install it, on Debian and Ubuntu: apt install {package}"
        yield Check(program, path or f"missing; {use}", remedy)


def _kernels() -> Check:
    kept = Path(compiled.__file__).parent
    if os.access(kept, os.W_OK) or os.environ.get("NUMBA_CACHE_DIR"):
        return Check("compiled searches", "kept between processes")
    remedy = "set NUMBA_CACHE_DIR to a folder that can be written"
    return Check("compiled searches", "perhaps compiled anew by every process, which takes seconds", remedy)


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    return Check("disk", f"{free:.1f} GB free here", None if free >= LOW_DISK_GB else "make room before long work")


def _sample() -> Check:
    """Whether the bundled model recognises a bundled recording, and how fast."""
    try:
        recognized = loading.load(device="cpu")
        started = time.perf_counter()
        transcript = recognized.transcribe(Path(loading.__file__).parent / "samples" / SAMPLE)
        spent = time.perf_counter() - started
    except (KikitoriError, OSError) as error:
        return Check(loading.BUNDLED.name, f"does not work: {error}", "install kikitori again", needed=True)
    if not transcript.text:
        return Check(loading.BUNDLED.name, "hears nothing in a sample", "install kikitori again", needed=True)
    return Check(loading.BUNDLED.name, f"recognises a sample of {transcript.duration:.1f} s in {spent:.1f} s")
