"""One server for all tests of it: a tiny recogniser behind a real socket, started once."""

import io
import socket
import threading
from dataclasses import dataclass

import numpy as np
import pytest
import soundfile as sf
import uvicorn

from kikitori.engine.local import LocalEngine
from kikitori.engine.models import by_name, served
from kikitori.loading import load
from kikitori.recognizer import Recognizer
from kikitori.search.guards import Guards
from kikitori.segment import chunks
from kikitori.server.app import create_app
from kikitori.server.settings import Settings
from kikitori.server.uploads import UploadLimits
from tests.segmenters import LoudIsSpeech
from tests.tiny import save_tiny, tiny_waveform

SHORT = tiny_waveform(1.5, 1)
SPOKEN = [tiny_waveform(seconds, seed) for seed, seconds in enumerate((1.2, 0.8, 1.1))]
LONG = np.concatenate([part for wave in SPOKEN for part in (wave, np.zeros(8_000, np.float32))])
SETTINGS = Settings(uploads=UploadLimits(max_bytes=400_000, max_seconds=20.0), upload_seconds=2.0)


@dataclass(frozen=True)
class Served:
    url: str
    port: int
    recognizer: Recognizer
    engine: LocalEngine


def wav(samples, rate_hz=16000):
    """Float WAV: what is decoded are the same samples."""
    file = io.BytesIO()
    sf.write(file, samples, rate_hz, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture(scope="package")
def tiny_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recogniser") / "tiny"
    save_tiny(folder)
    return folder


@pytest.fixture(scope="package")
def tiny(tiny_folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "new_segmenter", LoudIsSpeech)
        yield load(tiny_folder, device="cpu", guards=Guards())


@pytest.fixture(scope="package")
def server(tiny):
    engine = LocalEngine(by_name([served(tiny, ["ctc_greedy", "ctc_beam"])]))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # who comes before the server runs waits
        port = listening.getsockname()[1]
        app = uvicorn.Server(uvicorn.Config(create_app(engine, SETTINGS), log_level="warning", server_header=False))
        thread = threading.Thread(target=app.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Served(f"http://127.0.0.1:{port}", port, tiny, engine)
        app.should_exit = True
        thread.join()
