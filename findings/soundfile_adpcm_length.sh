#!/usr/bin/env bash
# soundfile 0.14.0 (libsndfile), WAV with Microsoft ADPCM, which telephone recorders write: 15,999 samples. The file's own
# "fact" chunk says 15,999, as the format asks for (RIFF: samples of a compressed file, since its last block is filled up).
# Expected: 15,999 samples are read. What happens: no warning, 16,192, the whole last block, in `read` and in `info`.
# PyAV 16.0.1 (FFmpeg) gives 16,192 as well.
# Output seen: fact 15999 read 16192 info 16192 PyAV 16192
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install av==16.0.1 soundfile==0.14.0 numpy==2.2.6
"$folder/venv/bin/python" - <<'PYTHON'
import io
import struct

import av
import numpy as np
import soundfile

out = io.BytesIO()
soundfile.write(out, 0.3 * np.sin(np.arange(15999) / 20), 16000, format="WAV", subtype="MS_ADPCM")
data = out.getvalue()
place = data.index(b"fact") + 8
fact = struct.unpack("<I", data[place : place + 4])[0]
read, info = len(soundfile.read(io.BytesIO(data))[0]), soundfile.info(io.BytesIO(data)).frames
by_pyav = sum(frame.samples for frame in av.open(io.BytesIO(data)).decode(audio=0))
print("fact", fact, "read", read, "info", info, "PyAV", by_pyav)
assert fact == 15999
assert read == info > 15999, "the behaviour has changed: the fact chunk is believed"
PYTHON
