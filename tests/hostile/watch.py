"""Loading under watch, in a child process."""

import ctypes
import os
import pickle
import resource
import shutil
import signal
import struct
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.hostile.attack import SECRET, Attack, good_folder
from tests.processes import start

HANG_SECONDS = 60
MEGABYTES = 200
MEMORY_LIMIT = 12 * 2**30  # beyond what the child has mapped at its start: an attack must not take the machine down


@dataclass(frozen=True)
class Outcome:
    """What happened when a hostile folder was loaded.

    Attributes:
        name: Name of the attack.
        error: Type of the error, "" if it loaded, "hung" or "died".
        message: Its text.
        typed: Whether it is a KikitoriError of one line.
        leaked: Whether the message tells a secret of the environment.
        seconds: Time it took.
        megabytes: Growth of the peak memory.
        opened: Files outside of the model folder that were opened.
        ran_code: Whether planted code ran.
        refused: Whether it had to be refused.
    """

    name: str
    error: str
    message: str
    typed: bool
    leaked: bool
    seconds: float
    megabytes: float
    opened: tuple[str, ...]
    ran_code: bool
    refused: bool

    @property
    def repelled(self) -> bool:
        """Refused with one line (or ignored where that is enough), and nothing else happened."""
        good_end = self.typed or (not self.refused and not self.error)
        harm = self.opened or self.ran_code or self.leaked
        return good_end and not harm and self.megabytes < MEGABYTES


def load_recogniser(model: Path) -> object:
    import kikitori

    return kikitori.load(model, device="cpu")


def load_encoder(model: Path) -> object:
    from kikitori.model.encoder import SpeechEncoder

    return SpeechEncoder.from_pretrained(model)


def load_llm(model: Path) -> object:
    from kikitori.model import folder

    return folder.load_llm(model)


def load_units(model: Path) -> object:
    from kikitori.text import units

    return units.load_units(model)


def load_adapter(model: Path) -> object:
    import kikitori

    return kikitori.load(model / "base", adapter=model, device="cpu")


def load_carelessly(model: Path) -> object:
    """Falls for everything: shows that the watch sees it."""
    pickle.loads((model / "pytorch_model.bin").read_bytes())  # noqa: S301
    secret = (model.parent / "outside" / "secret").read_text()
    wasted = b"x" * (300 << 20)
    raise ValueError(os.environ["KIKITORI_SECRET"] + secret, len(wasted))


LOADERS: dict[str, Callable[[Path], object]] = {
    "recogniser": load_recogniser,
    "acoustic": load_recogniser,
    "published": load_recogniser,
    "encoder": load_encoder,
    "llm": load_llm,
    "units": load_units,
    "adapter": load_adapter,
    "careless": load_carelessly,
    "abort": lambda _: os.abort(),
}


def open_all(attacks: Sequence[Attack], root: Path) -> list[Outcome]:
    """Builds every attack below `root`, loads it in a child process (one more each time that dies), and removes it."""
    outcomes: list[Outcome] = []
    child, end = _start_child()
    for one in attacks:
        place = root / one.name
        place.mkdir(parents=True)
        one.build(place)
        if child.exitcode is not None:
            child, end = _start_child()
        end.send((one.loader, place))
        try:
            result = end.recv()
        except EOFError:
            child.join()
            error = "hung" if child.exitcode == -signal.SIGALRM else "died"
            result = _result(error, f"exit status {child.exitcode}")
        ran_code = (place / "canary").exists()
        outcomes.append(Outcome(name=one.name, refused=one.refused, ran_code=ran_code, **result))
        shutil.rmtree(place)  # at once, so that large files need not reach the disk
    end.close()
    child.join()
    return outcomes


def _start_child() -> tuple[BaseProcess, Connection]:
    """A process that loads what it is sent, and this end of the line to it."""
    ours, theirs = Pipe()
    child = start(_load_all, theirs, good_folder("recogniser"))
    theirs.close()  # else its end would never be seen
    return child, ours


def _load_all(line: Connection, good: Path) -> None:
    os.environ["KIKITORI_SECRET"] = SECRET
    load_recogniser(good)  # imports what loading needs
    _limit_memory()
    with suppress(EOFError):
        while True:
            loader, place = line.recv()
            line.send(_watched(LOADERS[loader], place))


def _watched(loader: Callable[[Path], object], place: Path) -> dict[str, Any]:
    from kikitori.errors import KikitoriError

    result = _result()
    before, watch, start = _reset_peak_memory(), _Opens(place / "outside"), time.perf_counter()
    signal.alarm(HANG_SECONDS)  # its default action ends the process, whatever native code is doing
    try:
        loader(place / "model")
    except BaseException as error:  # noqa: BLE001
        typed = isinstance(error, KikitoriError) and "\n" not in str(error)
        result = _result(type(error).__name__, str(error), typed=typed)
    signal.alarm(0)
    seconds = time.perf_counter() - start
    megabytes = (_memory("VmHWM") - before) / 1024
    return {**result, "seconds": round(seconds, 3), "megabytes": round(megabytes, 1), "opened": tuple(watch.names())}


def _result(error: str = "", message: str = "", *, typed: bool = False) -> dict[str, Any]:
    nothing = {"seconds": 0.0, "megabytes": 0.0, "opened": ()}
    return {"error": error, "message": message[:500], "typed": typed, "leaked": SECRET in message, **nothing}


def _reset_peak_memory() -> int:
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(key: str) -> int:
    """Kilobytes."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith(key))


def _limit_memory() -> None:
    limit = _memory("VmSize") * 1024 + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


class _Opens:
    """Which files of a folder are opened from now on (by inotify: audit hooks do not see native code)."""

    IN_OPEN, IN_NONBLOCK = 0x20, 0o4000

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.handle = libc.inotify_init1(self.IN_NONBLOCK)
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            if libc.inotify_add_watch(self.handle, os.fsencode(path), self.IN_OPEN) < 0:
                raise OSError(ctypes.get_errno(), "inotify")

    def names(self) -> list[str]:
        try:
            events = os.read(self.handle, 1 << 16)
        except BlockingIOError:
            events = b""
        os.close(self.handle)
        found = set()
        while events:
            _, _, _, size = struct.unpack_from("iIII", events)
            found.add(events[16 : 16 + size].rstrip(b"\0").decode())
            events = events[16 + size :]
        return sorted(found - {""})
