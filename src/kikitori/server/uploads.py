"""Uploads decoded in child processes, which are ended when they take too long and replaced when they die."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kikitori.data.augment import Waveform
from kikitori.errors import AudioError
from kikitori.server.decoder import FRAME_BYTES, LENGTH_BYTES

WHERE = "file"
REMEDY = "convert it to FLAC or WAV"
READ_BYTES = 256 * 1024
MOST_FRAME_BYTES = 1024**2  # a block of ten seconds is smaller


class Upload(Protocol):
    """What is read of an upload; starlette's `UploadFile` is one."""

    async def read(self, size: int = -1, /) -> bytes:
        """The next bytes, none at the end."""
        ...


@dataclass(frozen=True)
class UploadLimits:
    """What is refused.

    Attributes:
        max_bytes: Of an upload.
        max_seconds: Of audio.
        decode_seconds: For decoding one.
    """

    max_bytes: int = 25 * 1024**2
    max_seconds: float = 3600.0
    decode_seconds: int = 60


class Decoders:
    """Child processes that decode, `count` at once; a recording waits for one.

    Processes are started afresh, not forked: those of a parent with threads may hang.
    """

    def __init__(self, limits: UploadLimits, count: int = 2) -> None:
        self._limits = limits
        self._room = asyncio.Semaphore(count)
        self._idle: list[Process] = []

    async def decode(self, upload: Upload, num_bytes: int) -> list[Waveform]:
        """The samples of a recording at 16 kHz in blocks of ten seconds.

        Raises:
            AudioError: It cannot be read, is too long, or takes too long to decode.
        """
        async with self._room:
            process = self._idle.pop() if self._idle else await self._start()
            try:
                async with asyncio.timeout(self._limits.decode_seconds):
                    sending = asyncio.create_task(_send(process, upload, num_bytes))
                    try:
                        blocks = [block async for block in _blocks(process)]
                        await sending
                    finally:
                        sending.cancel()
                        await asyncio.gather(sending, return_exceptions=True)
            except TimeoutError:
                await _end(process)
                what = f"took more than {self._limits.decode_seconds} s to decode"
                raise AudioError(what, where=WHERE, remedy=REMEDY) from None
            except AudioError:
                self._idle.append(process)
                raise
            except (OSError, asyncio.IncompleteReadError, _ProtocolError):
                await _end(process)
                raise AudioError("ended the process that decoded it", where=WHERE, remedy=REMEDY) from None
            except BaseException:
                await _end(process)
                raise
            self._idle.append(process)
            return blocks

    async def close(self) -> None:
        """Ends all processes."""
        for process in self._idle:
            await _end(process)
        self._idle.clear()

    async def _start(self) -> Process:
        arguments = ("-m", "kikitori.server.decoder", str(self._limits.max_seconds), str(self._limits.decode_seconds))
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        return await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, env={**os.environ, **one_thread}
        )


class _ProtocolError(Exception):
    pass


async def _send(process: Process, upload: Upload, num_bytes: int) -> None:
    assert process.stdin is not None  # noqa: S101
    process.stdin.write(num_bytes.to_bytes(LENGTH_BYTES, "big"))
    left = num_bytes
    while left and (data := await upload.read(min(READ_BYTES, left))):
        process.stdin.write(data)
        await process.stdin.drain()
        left -= len(data)
    if left:
        raise _ProtocolError


async def _blocks(process: Process) -> AsyncIterator[Waveform]:
    assert process.stdout is not None  # noqa: S101
    while True:
        kind = await process.stdout.readexactly(1)
        length = int.from_bytes(await process.stdout.readexactly(FRAME_BYTES), "big")
        if length > MOST_FRAME_BYTES:
            raise _ProtocolError
        payload = await process.stdout.readexactly(length)
        match kind:
            case b"B":
                yield np.frombuffer(payload, np.float32)
            case b"E":
                return
            case b"X":
                error = json.loads(payload)
                raise AudioError(str(error["what"]), where=WHERE, remedy=str(error["remedy"]))
            case _:
                raise _ProtocolError


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()
