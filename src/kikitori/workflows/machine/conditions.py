"""What the machine is, and how much memory has been taken, for reports."""

import platform
import re
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import kikitori
from kikitori.scoring.conditions import Conditions


def conditions_of(device: str, dtype: str, batch_size: int, corruption: str | None = None, seed: int = 0) -> Conditions:
    """Those of an evaluation that has just been made.

    Args:
        device: As torch names it.
        dtype: Arithmetic of the networks.
        batch_size: Utterances decoded together.
        corruption: Name of what was done to the recordings, if anything was.
        seed: Of what was drawn for it.
    """
    on_gpu = device.startswith("cuda")
    name = torch.cuda.get_device_name(device) if on_gpu else _processor()
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if on_gpu else peak_memory_mb()
    kind = "cuda" if on_gpu else device
    return Conditions(
        f"{kind} ({name})" if name else kind, dtype, batch_size, torch.get_num_threads(), memory, corruption, seed
    )


def forget_peak_memory(device: str) -> None:
    """Lets `conditions_of` count from what is held now, so that an evaluation does not tell the peak of one before.

    Where the system does not allow it the peak stays that of the whole process.
    """
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        return
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # of Linux: VmHWM alone


def peak_memory_mb() -> float | None:
    """The most memory that this process has held, since `forget_peak_memory` if called; None but on Linux."""
    found = re.search(r"VmHWM:\s+(\d+) kB", _read(Path("/proc/self/status")))
    return int(found[1]) * 1024 / 1e6 if found else None


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    found = {"kikitori": kikitori.__version__, "python": platform.python_version()}
    for package in ("torch", "transformers", "soundfile", "whisper-normalizer", "kaldialign"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "missing"
    return found


def _processor() -> str:
    found = re.search(r"model name\s*:\s*(.+)", _read(Path("/proc/cpuinfo")))
    return found[1].strip() if found else platform.processor()


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
