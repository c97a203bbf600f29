"""A server for the scripts that try it from outside."""

import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def serving(port: int, *options: str) -> Iterator[str]:
    """Runs `kikitori serve` with these options; gives its address when it takes requests."""
    command = [sys.executable, "-m", "kikitori", "serve", "--port", str(port), *options]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                urllib.request.urlopen(f"{url}/readyz").close()
                break
            except OSError:
                assert server.poll() is None, "the server has ended"
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()
