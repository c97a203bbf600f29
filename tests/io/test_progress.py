"""Bars on a terminal, lines elsewhere."""

import io
import sys

import pytest
from numba.core import event

from kikitori import compiled
from kikitori.errors import ModelError
from kikitori.io import progress
from kikitori.model.safety import config


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_now_and_then(capsys, monkeypatch):
    seconds = iter([0.0, 59.0, 60.0, 60.0, 61.0])
    tell = progress.now_and_then(lambda: next(seconds))
    with progress.notes_as_lines():
        for line in ("one", "two", "three"):
            tell(lambda line=line: line)
        monkeypatch.setattr(progress, "EVERY_S", 0.0)
        with progress.progress_bar("speaking", 5) as count:
            count(2)
            count(3)
    progress.note("outside of a command")
    assert capsys.readouterr().err == "kikitori: two\nkikitori: speaking: 2 of 5\nkikitori: speaking: 5 of 5\n"


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with progress.progress_bar("speaking", 5) as count:
        count(5)
    assert "speaking" in terminal.getvalue()


def test_what_is_compiled_first_is_said_once(capsys, monkeypatch):
    monkeypatch.setattr(compiled._Compilation, "told", False)
    monkeypatch.setattr(compiled.NOTES, "filters", [])
    with progress.notes_as_lines():
        for _ in range(2):
            event.start_event("numba:compile")
    assert capsys.readouterr().err.count("kikitori: compiling") == 1


def test_what_is_fetched_is_said(capsys, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", unreachable)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with progress.notes_as_lines(), pytest.raises(ModelError, match="cannot be fetched"):
        config.read_json("someone/something", "config.json")
    assert capsys.readouterr().err == "kikitori: fetching someone/something from the hub, the first time alone\n"


def test_bars_of_downloads_stay_on_a_terminal(monkeypatch):
    before = config.are_progress_bars_disabled()
    with config.quiet_transformers():
        assert config.are_progress_bars_disabled()
    config.enable_progress_bars()
    monkeypatch.setattr(sys, "stderr", Terminal())
    with config.quiet_transformers():
        assert not config.are_progress_bars_disabled()
    assert not before
