#!/usr/bin/env bash
# PyAV 16.0.1 (FFmpeg's FLAC parser): two FLAC files joined by cat, one second and half a second, 16 kHz.
# Expected: 24,000 samples, or an error. What happens: no error and no warning, 19,904 samples: the last block (4,096
# samples, a quarter of a second) is lost. The two files alone give 16,000 and 8,000.
# Output seen: alone 16000 8000, joined 19904
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install av==16.0.1 soundfile==0.13.1 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import io

import av
import numpy as np
import soundfile


def flac(count, loud):
    rng = np.random.default_rng(0)
    time = np.arange(count) / 16000
    out = io.BytesIO()
    soundfile.write(out, loud * (np.sin(600 * np.pi * time) + 0.02 * rng.standard_normal(count)), 16000, format="FLAC")
    return out.getvalue()


def samples(data):
    return sum(frame.samples for frame in av.open(io.BytesIO(data)).decode(audio=0))


first, second = flac(16000, 0.3), flac(8000, 0.15)
joined = samples(first + second)
print("alone", samples(first), samples(second), "joined", joined)
assert (samples(first), samples(second)) == (16000, 8000)
assert joined < 24000, "the behaviour has changed: all samples come"
PYTHON
