"""How soon somebody who speaks reads what was said: `python benchmarks/server_live.py [URL] [RECORDING ...]`.

Recordings are sent to `/v1/live` of a running `kikitori serve` as fast as they were spoken. The delay of a message is
that between the last sample that it covers, by its `end`, and its arrival; a final text covers the pause that ends it.
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
from websockets.sync.client import ClientConnection, connect

from kikitori.data.augment import Waveform
from kikitori.io.audio import SAMPLE_RATE, read_audio
from kikitori.loading import BUNDLED

SAMPLES = sorted((BUNDLED.parents[1] / "samples").glob("*.opus"))
STEP = SAMPLE_RATE // 10


def speak(socket: ClientConnection, samples: Waveform, began: float) -> None:
    for at in range(0, len(samples), STEP):
        time.sleep(max(began + (at + STEP) / SAMPLE_RATE - time.monotonic(), 0.0))
        socket.send((samples[at : at + STEP] * 32767).astype("<i2").tobytes())
    socket.send(json.dumps({"type": "stop"}))


def delays(url: str, path: Path) -> dict[str, list[float]]:
    pause = np.zeros(SAMPLE_RATE, np.float32)
    samples = np.concatenate([read_audio(path), pause])
    found: dict[str, list[float]] = {"partial": [], "final": []}
    with connect(url) as socket:
        socket.send(json.dumps({"type": "start"}))
        assert json.loads(socket.recv())["type"] == "ready"
        began = time.monotonic()
        threading.Thread(target=speak, args=(socket, samples, began)).start()
        while (message := json.loads(socket.recv()))["type"] != "done":
            assert message["type"] != "error", message
            if message["text"]:
                found[message["type"]].append(time.monotonic() - began - message["end"])
    return found


def main() -> None:
    url, *paths = sys.argv[1:] or ["ws://127.0.0.1:8000/v1/live"]
    each = [delays(url, Path(path)) for path in paths or SAMPLES]
    for kind in ("partial", "final"):
        values = np.array([value for one in each for value in one[kind]])
        median, late = np.quantile(values, [0.5, 0.95])
        print(f"{kind}: {len(values)} texts, delay {median:.2f} s median, {late:.2f} s for 95 %")


if __name__ == "__main__":
    main()
