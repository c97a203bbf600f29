#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile): two Ogg files joined by cat, one second and half a second at 16 kHz. Chained streams are
# valid Ogg (RFC 3533, section 4; RFC 7845 for Opus), and what recorders of internet radio write.
# Expected: 24,000 samples, or an error. What happens: no error and no warning, the first link alone, and `info` says the
# same, for Vorbis and Opus. PyAV 16.0.1 (FFmpeg) reads both links, of Vorbis but for 256 samples.
# Output seen: OPUS alone 16000 8000, joined 16000 info 16000, PyAV 24000; VORBIS the same, PyAV 23744
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install av==16.0.1 soundfile==0.14.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np
import soundfile


def ogg(count, subtype):
    out = io.BytesIO()
    wave = 0.3 * np.sin(600 * np.pi * np.arange(count) / 16000)
    soundfile.write(out, wave, 16000, format="OGG", subtype=subtype)
    return out.getvalue()


def by_soundfile(data):
    return len(soundfile.read(io.BytesIO(data))[0])


def by_pyav(data):
    """Samples at 16 kHz; Opus is decoded at 48 kHz."""
    return sum(frame.samples * 16000 / frame.sample_rate for frame in av.open(io.BytesIO(data)).decode(audio=0))


for subtype in ("OPUS", "VORBIS"):
    first, second = ogg(16000, subtype), ogg(8000, subtype)
    joined = by_soundfile(first + second)
    info = soundfile.info(io.BytesIO(first + second)).frames
    print(subtype, "alone", by_soundfile(first), by_soundfile(second), "joined", joined, "info", info)
    print("PyAV", round(by_pyav(first + second)))
    assert (by_soundfile(first), by_soundfile(second)) == (16000, 8000)
    assert joined == info == 16000, "the behaviour has changed: all links are read"
PYTHON
