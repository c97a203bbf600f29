"""The program that decodes uploads in a process of its own: `kikitori.server.decoder MAX_SECONDS CPU_SECONDS`.

Recordings come in on standard input, each as its length (8 bytes, big-endian) and its bytes. For each one frames go out
on standard output: a letter, a length (4 bytes) and so many bytes. `B` is a block of float32 samples at 16 kHz, `E` the
end of the recording, `X` instead of it why it cannot be read: JSON with `what` and `remedy`.

A damaged file that crashes a decoder costs this process and no other. It may not write files, and has limits of memory
and, for each recording, of processor time.
"""

import json
import sys
from contextlib import suppress
from typing import BinaryIO

from kikitori.errors import AudioError
from kikitori.io.audio import AudioLimits, stream_audio

MEMORY_BYTES = 4 * 1024**3  # of addresses, of which libraries take much and use little
LENGTH_BYTES, FRAME_BYTES = 8, 4


def main() -> None:
    """Decodes until standard input ends."""
    limits, cpu_seconds = AudioLimits(max_seconds=float(sys.argv[1])), int(sys.argv[2])
    _limit_process()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(head := source.read(LENGTH_BYTES)) == LENGTH_BYTES:
        _limit_time(cpu_seconds)
        decode(source.read(int.from_bytes(head, "big")), limits, sink)


def decode(data: bytes, limits: AudioLimits, sink: BinaryIO) -> None:
    """Writes the frames of one recording."""
    try:
        for block in stream_audio(data, limits=limits):
            _write(sink, b"B", block.tobytes())
        _write(sink, b"E", b"")
    except AudioError as error:
        _write(sink, b"X", json.dumps({"what": error.what, "remedy": error.remedy}).encode())
    except MemoryError:
        _write(sink, b"X", json.dumps({"what": "takes too much memory to decode", "remedy": "split it"}).encode())
    sink.flush()


def _write(sink: BinaryIO, kind: bytes, payload: bytes) -> None:
    sink.write(kind + len(payload).to_bytes(FRAME_BYTES, "big") + payload)


def _limit_process() -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))


def _limit_time(cpu_seconds: int) -> None:
    with suppress(ImportError, OSError, ValueError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime)
        resource.setrlimit(resource.RLIMIT_CPU, (used + cpu_seconds, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
