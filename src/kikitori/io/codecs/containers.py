"""What audio files hold, found by going through their blocks without decoding them.

Decoders trust the first header that they meet: files that were joined, or whose recorder was killed before it wrote the
sizes, are read short without a word.
"""

import io
import re
import struct
from dataclasses import dataclass
from typing import Protocol

_BLOCK = 1 << 20
_RIFF_ORDER = {b"RIFF": "<", b"RF64": "<", b"FORM": ">"}
_MP3_KBITS = {  # by MPEG version: 3 is 1, the others 2 and 2.5; layer III
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}
_END_TAGS = (b"TAG", b"APETAGEX", b"LYRICS", b"\0")
_FLAC = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
_CHUNK_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_ ]{3}")


class Handle(Protocol):
    """An open file."""

    def read(self, size: int = -1, /) -> bytes | None:
        """At most so many bytes from here on."""
        ...

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Goes to a place."""
        ...

    def tell(self) -> int:
        """The place."""
        ...


class Overlay:
    """An open file in which a few bytes read as others."""

    def __init__(self, handle: Handle, places: dict[int, bytes]) -> None:
        self._handle, self._places = handle, places

    def read(self, size: int = -1, /) -> bytes:
        """Reads as files do."""
        start = self._handle.tell()
        content = bytearray(self._handle.read(size) or b"")
        for place, new in self._places.items():
            for at, byte in enumerate(new, start=place - start):
                if 0 <= at < len(content):
                    content[at] = byte
        return bytes(content)

    def seek(self, position: int, whence: int = 0, /) -> int:
        """Seeks as files do, but never before the start, which would be an exception in libsndfile's callback."""
        base = (0, self._handle.tell(), 0)[whence] if whence != io.SEEK_END else self._handle.seek(0, io.SEEK_END)
        return self._handle.seek(max(0, base + position))

    def tell(self) -> int:
        """The place."""
        return self._handle.tell()


@dataclass(frozen=True)
class DataChunk:
    """The samples of a WAV, RF64 or AIFF file.

    Attributes:
        claimed: Bytes that the header claims; 0 where it claims none that can be believed.
        there: Bytes that follow to the end of the file.
        sizes: What the sizes in the header should have been, by place, where its writer left them at 0.
        joined: Another such file follows.
    """

    claimed: int = 0
    there: int = 0
    sizes: dict[int, bytes] | None = None
    joined: bool = False


def data_chunk(handle: Handle, num_bytes: int) -> DataChunk:
    """Finds the samples of a WAV, RF64 or AIFF file; all 0 for others."""
    handle.seek(0)
    order = _RIFF_ORDER.get((handle.read(12) or b"")[:4])
    start, large, place_of_large = 20, 0, 0
    for _ in range(1000 if order else 0):
        chunk = handle.read(8) or b""
        if len(chunk) < 8:
            break
        name, length = struct.unpack(f"{order}4sI", chunk)
        if name == b"ds64":
            large, place_of_large = int.from_bytes((handle.read(16) or b"")[8:], "little"), start + 8
        if name in (b"data", b"SSND"):
            return _samples(handle, num_bytes, f"{order}", start, length, large, place_of_large)
        start += 8 + length + length % 2
        handle.seek(start - 8)
    return DataChunk()


def _samples(
    handle: Handle, num_bytes: int, order: str, start: int, length: int, large: int, place_of_large: int
) -> DataChunk:
    there = num_bytes - start
    if length == 0xFFFFFFFF and place_of_large:
        length = large if large < 2**63 else 0
        if not length and there:
            return DataChunk(0, there, {place_of_large: struct.pack("<Q", there)})
    # Programs that write to a pipe (ffmpeg, sox, speech services) put a large number where they do not know the size.
    elif 0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000 or length in (10**9, 2 * 10**9, 4 * 10**9):
        length = 0
    elif not length and there and not _is_chunk(handle, order, there):
        # A recorder that was killed before it wrote the size.
        return DataChunk(0, there, {start - 4: struct.pack(f"{order}I", min(there, 0x7FFFFFFF))})
    handle.seek(start + length + length % 2)
    return DataChunk(length, there, None, length > 0 and (handle.read(4) or b"") in _RIFF_ORDER)


def _is_chunk(handle: Handle, order: str, there: int) -> bool:
    """Whether what comes next is another chunk of the file, of believable size."""
    head = handle.read(8) or b""
    return len(head) == 8 and bool(_CHUNK_NAME.match(head)) and struct.unpack(f"{order}I", head[4:])[0] <= there


def is_joined(handle: Handle, num_bytes: int) -> bool:
    """Whether several FLAC or MP4 files follow each other in one."""
    handle.seek(0)
    head = handle.read(12) or b""
    if head.startswith(b"fLaC"):
        return _has_second_flac(handle)
    return head[4:8] == b"ftyp" and _num_boxes(handle, num_bytes, b"moov") > 1


def is_chained(handle: Handle, num_bytes: int) -> bool:
    """Whether in an Ogg file (RFC 3533) a stream begins after pages of another."""
    place, begun = 0, False
    while place < num_bytes:
        handle.seek(place)
        page = handle.read(282) or b""
        if not page.startswith(b"OggS") or len(page) < 27:
            return False  # damaged; the decoder will see
        first = bool(page[5] & 2)
        if first and begun:
            return True
        begun |= not first
        place += 27 + page[26] + sum(page[27 : 27 + page[26]])
    return False


def _has_second_flac(handle: Handle) -> bool:
    handle.seek(4)
    tail = b""
    while block := handle.read(_BLOCK):
        if _FLAC.search(tail + block):
            return True
        tail = block[-8:]
    return False


def _num_boxes(handle: Handle, num_bytes: int, wanted: bytes) -> int:
    place = found = 0
    while place < num_bytes:
        handle.seek(place)
        head = handle.read(16) or b""
        if len(head) < 8:
            break
        size = int.from_bytes(head[:4])
        size = int.from_bytes(head[8:16]) if size == 1 else size
        found += head[4:8] == wanted
        if size < 8:
            break
        place += size
    return found


def mp3_is_sound(handle: Handle, num_bytes: int) -> bool:
    """Whether an MP3 file's header counts its frames, of all files if several were joined, and they have no gaps.

    libsndfile guesses the length of files without a count (Xing), and goes over gaps without a word.
    """
    handle.seek(0)
    start = _tag_bytes((handle.read(10) or b"").ljust(10, b"\0"))
    handle.seek(start)
    found = re.search(rb"(?:Xing|Info)\0\0\0[\x03\x07\x0b\x0f]....(....)", handle.read(256) or b"", re.DOTALL)
    if found is None or num_bytes - start > int.from_bytes(found[1]) * 1.01 + 1024:
        return False
    return _frames_follow(handle, start)


def _frames_follow(handle: Handle, start: int) -> bool:
    """Whether from here to the end there are frames of MP3 without gaps, and tags."""
    block, base, place = b"", start, start
    while True:
        if place + 10 > base + len(block):
            handle.seek(place)
            block, base = handle.read(_BLOCK) or b"", place
        head = block[place - base : place - base + 10]
        if len(head) < 4:
            return True
        size = _frame_bytes(head) or _tag_bytes(head.ljust(10, b"\0"))
        if not size:
            return head.startswith(_END_TAGS)
        place += size


def _frame_bytes(head: bytes) -> int:
    """The size of a frame of layer III by its first four bytes; 0 if it is none."""
    version, rate, kbits = head[1] >> 3 & 3, head[2] >> 2 & 3, head[2] >> 4
    if head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or version == 1 or rate == 3 or kbits in (0, 15):
        return 0
    samples = 1152 if version == 3 else 576
    return samples // 8 * 1000 * _MP3_KBITS[version == 3][kbits] // _MP3_RATES[version][rate] + (head[2] >> 1 & 1)


def _tag_bytes(head: bytes) -> int:
    """The size of an ID3v2 tag by its first ten bytes; 0 if it is none."""
    if not head.startswith(b"ID3"):
        return 0
    return 10 + sum((byte & 127) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
