"""What reports say of the machine."""

import numpy as np
import pytest
import torch

from kikitori.scoring.conditions import HEADING, Conditions, read_conditions, unknown_cells
from kikitori.workflows.machine import conditions
from kikitori.workflows.machine.conditions import conditions_of, forget_peak_memory, peak_memory_mb


def test_the_machine_is_described(monkeypatch, tmp_path):
    found = conditions_of("cpu", "float32", 4, "noise:10", 2)
    assert found.device.startswith("cpu")
    assert (found.threads, found.batch_size, found.sound) == (torch.get_num_threads(), 4, "corruption noise:10, seed 2")
    assert found.peak_memory_mb is None or found.peak_memory_mb > 100
    monkeypatch.setattr(conditions, "Path", lambda _: tmp_path / "none")
    assert peak_memory_mb() is None
    monkeypatch.setattr("platform.processor", lambda: "")
    assert conditions_of("cpu", "bfloat16", 1).device == "cpu"


@pytest.mark.skipif(peak_memory_mb() is None, reason="tells of Linux alone")
def test_the_peak_of_one_evaluation_is_not_that_of_the_one_before():
    block = np.ones(25_000_000)  # 200 MB, touched
    before = peak_memory_mb()
    del block
    forget_peak_memory("cpu")
    assert peak_memory_mb() < before - 150


def test_reports_hold_conditions_or_none():
    found = Conditions("cpu (a)", "float32", 8, 1, 512.4)
    assert str(found) == "batches of 8 in float32 on cpu (a), 1 thread, at most 512 MB, after a warm-up batch"
    assert found.cells(2.04) == ["2.0", "8", "cpu (a)", "float32", "1", "512"]
    assert len(unknown_cells(None)) == len(HEADING)
    values = {"device": "cpu", "dtype": "float32", "batch_size": 8, "threads": 2, "later": 1}
    assert read_conditions(values) == Conditions("cpu", "float32", 8, 2)
    assert read_conditions(None) is read_conditions({"device": 1}) is None
