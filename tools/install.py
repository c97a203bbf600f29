"""pip install, with a line that says for how long and with what it is busy.

    .venv/bin/python tools/install.py [arguments of pip install]

On a terminal the line changes each second, elsewhere there is one now and then. What pip has to say of errors is shown.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Thread
from typing import IO

PIP = ("-m", "pip", "install", "--disable-pip-version-check", "--root-user-action", "ignore", "--progress-bar", "off")
NOW_AND_THEN = 15.0
"""Seconds between lines that do not replace each other."""
WIDTH = 78


class Busy:
    """What pip does, by the last line that it has written.

    Args:
        lines: Its standard output.
    """

    def __init__(self, lines: IO[str]) -> None:
        self.what, self._packages = "asking pip", 0
        Thread(target=self._read, args=(lines,), daemon=True).start()

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self.follow(line)

    def follow(self, line: str) -> None:
        """Takes note of a line of pip."""
        first, *rest = line.split() or [""]
        if first == "Collecting" and rest:
            self._packages += 1
            self.what = f"package {self._packages}: {rest[0]}"
        elif first == "Downloading" and rest:
            self.what = f"package {self._packages}: fetching {' '.join(rest)}"
        elif line.startswith("Installing collected packages:"):
            self.what = f"unpacking {len(line.split(','))} packages, torch is the largest"


def main(arguments: Sequence[str]) -> int:
    """Returns pip's exit status."""
    started, on_terminal = time.monotonic(), sys.stderr.isatty()
    with subprocess.Popen([sys.executable, *PIP, *arguments], stdout=subprocess.PIPE, text=True) as pip:
        assert pip.stdout is not None  # it is a pipe
        busy, told = Busy(pip.stdout), -NOW_AND_THEN
        while pip.poll() is None:
            seconds = time.monotonic() - started
            if on_terminal or seconds - told >= NOW_AND_THEN:
                line, told = f"setting up: {seconds:.0f} s, {busy.what}"[:WIDTH], seconds
                print(f"\r{line:{WIDTH}}" if on_terminal else line, end="" if on_terminal else "\n", file=sys.stderr)
                sys.stderr.flush()
            time.sleep(1.0)
    if on_terminal:
        print(f"\r{'':{WIDTH}}\r", end="", file=sys.stderr)
    return pip.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
