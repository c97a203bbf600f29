"""Uploads: decoded in other processes, refused in one line, whatever they are; none takes the server with it."""

import asyncio
import io
import os
import signal
import struct
from dataclasses import replace

import numpy as np
import pytest

from kikitori.errors import AudioError
from kikitori.io.audio import read_audio
from kikitori.loading import BUNDLED
from kikitori.server.uploads import Decoders, UploadLimits
from tests.server.conftest import LONG, SHORT, wav

LIMITS = UploadLimits(max_seconds=5.0, decode_seconds=20)
OPUS = (BUNDLED.parents[1] / "samples" / "19-198-0008.opus").read_bytes()


class Upload(io.BytesIO):
    async def read(self, size=-1):
        return super().read(size)


def ten_hours():
    data = bytearray(wav(SHORT))
    at = data.index(b"data") + 4
    data[at : at + 4] = struct.pack("<I", 10 * 3600 * 16_000 * 4 - 1000)
    return bytes(data)


def decode(decoders, data):
    return asyncio.wait_for(decoders.decode(Upload(data), len(data)), 60)


def test_what_is_decoded_is_what_was_sent():
    async def run():
        decoders = Decoders(LIMITS, count=1)
        first, pid = await decode(decoders, wav(LONG)), decoders._idle[0].pid
        refused = []
        for data in (
            b"a text",
            ten_hours(),
            wav(np.zeros(16_000 * 6, np.float32)),
            OPUS[:3000],
            b"",
            wav(SHORT * np.nan),
        ):
            with pytest.raises(AudioError) as caught:
                await decode(decoders, data)
            refused.append(str(caught.value))
        second = await decode(decoders, OPUS)
        assert decoders._idle[0].pid == pid  # all by one process
        await decoders.close()
        return np.concatenate(first), np.concatenate(second), refused

    first, second, refused = asyncio.run(run())
    assert np.array_equal(first, LONG)
    assert np.array_equal(second, read_audio(OPUS))
    assert "text file" in refused[0]
    assert "truncated" in refused[1] or "too long" in refused[1]
    assert "too long" in refused[2]
    assert all(len(line.splitlines()) == 1 and line.startswith("file: ") for line in refused)


def test_a_decoder_that_dies_or_hangs_is_replaced():
    async def run():
        decoders = Decoders(LIMITS, count=1)
        await decode(decoders, wav(SHORT))
        first = decoders._idle[0]
        os.kill(first.pid, signal.SIGKILL)
        await first.wait()
        with pytest.raises(AudioError, match="ended the process"):
            await decode(decoders, wav(SHORT))
        await decode(decoders, wav(SHORT))
        second = decoders._idle[0]
        os.kill(second.pid, signal.SIGSTOP)
        decoders._limits = replace(LIMITS, decode_seconds=0.2)
        with pytest.raises(AudioError, match=r"more than 0\.2 s"):
            await decode(decoders, wav(SHORT))
        assert second.returncode == -signal.SIGKILL
        assert decoders._idle == []

    asyncio.run(run())
