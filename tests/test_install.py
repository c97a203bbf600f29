"""tools/install.py: the line that `make demo` shows while pip works."""

import io
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

INSTALL = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "tools" / "install.py")))


def test_what_pip_is_busy_with():
    busy = INSTALL.Busy(io.StringIO())
    assert busy.what == "asking pip"
    told = []
    for line in (
        "Obtaining file:///somewhere\n",
        "Collecting torch>=2.11 (from kikitori==0.1.0)\n",
        "  Downloading torch-2.13.0.whl (190 MB)\n",
        "Requirement already satisfied: pip\n",
        "\n",
        "Collecting numpy\n",
        "Installing collected packages: numpy, torch, kikitori\n",
    ):
        busy.follow(line)
        told.append(busy.what)
    assert told[1:3] == ["package 1: torch>=2.11", "package 1: fetching torch-2.13.0.whl (190 MB)"]
    assert told[3] == told[4] == told[2]
    assert told[5:] == ["package 2: numpy", "unpacking 3 packages, torch is the largest"]


def test_pip_says_what_is_wrong_and_its_status_is_kept(capfd, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert INSTALL.main(["--no-index", "--quiet", "--no-such-option"]) != 0
    error = capfd.readouterr().err
    assert "setting up: 0 s, asking pip" in error
    assert "no-such-option" in error
