"""A short form of every row of the scorecard."""

import pytest

from tests.score.again import count_repeats
from tests.score.attacks import count_attacks
from tests.score.damage import count_damage
from tests.score.faults import count_faults
from tests.score.fuzz import count_mutants
from tests.score.jobs import count_killed_jobs
from tests.score.kills import Killing, count_kills
from tests.score.length import count_long
from tests.score.nonfinite import count_nonfinite
from tests.score.page import page
from tests.score.ranks import count_lost_processes
from tests.score.resume import count_resumes
from tests.score.row import Row
from tests.score.suites import count_tests


def test_a_row_passes_only_if_it_was_tried():
    assert Row("R0", "", 3, 3).passed
    assert not Row("R0", "", 2, 3).passed
    assert not Row("R0", "", 0, 0).passed


def test_rows_that_were_not_counted_stay():
    names = ["R1 full", "R1 lora", "R9", "R11"]
    first = page("", [Row("R1 full", "runs", 3, 3, ("slowest 1 s",)), Row("R11", "jobs", 1, 2)], names, "stock: stuck")
    assert "| R1 full | runs | 3 | 3 | " in first
    assert "| R11 | jobs | 1 FAILED | 2 | " in first
    again = page(first, [Row("R9", "audio", 5, 5, ("most memory 3 MB",)), Row("R11", "jobs", 2, 2)], names, "")
    rows = [line.split(" | ")[0] for line in again.splitlines() if line.startswith("| R")]
    assert rows == ["| R1 full", "| R9", "| R11"]
    assert "FAILED" not in again
    notes = [line for line in again.splitlines() if line.startswith("* ")]
    assert notes == ["* R1 full: slowest 1 s", "* R9: most memory 3 MB", "* stock: stuck"]


def test_tests_are_counted(tmp_path):
    tests = "import pytest\ndef test_a(): pass\ndef test_b(): assert 0\n"
    (tmp_path / "test_some.py").write_text(
        f"{tests}def test_c(): pytest.skip()\n@pytest.mark.slow\ndef test_d(): pass\n"
    )
    row = count_tests(tmp_path, "R0", "some", str(tmp_path / "test_some.py"))
    assert (row.kept, row.tries) == (2, 3)
    assert row.details[0] == "1 cannot be tried here"
    assert row.details[1].endswith("test_some.test_b")


@pytest.mark.slow  # tests/io/test_audio.py reads 50 of five formats
def test_r9_damaged_recordings_are_read_or_refused(tmp_path):
    row = count_mutants(tmp_path, each=30)
    assert row.passed, row


@pytest.mark.slow  # tests/train/loop/test_checkpoint.py and test_stages.py resume from each step in one process
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_r1_killed_runs_end_like_others(tmp_path, mode):
    row = count_kills(tmp_path, mode, [Killing(None, 0.1), Killing(None, 0.3)], epochs=6)
    assert row.passed, row


def test_r2_damage_is_found(tmp_path):
    row = count_damage(tmp_path, every=5)
    assert row.passed, row


def test_r3_a_refusing_disk_loses_nothing(tmp_path):
    row = count_faults(tmp_path, every=7)
    assert row.passed, row


@pytest.mark.slow  # tests/train/loop/test_trainer.py tries the same in one process
def test_r4_weights_stay_finite(tmp_path):
    row = count_nonfinite(tmp_path, positions=3)
    assert row.passed, row
    assert row.details == ("with trouble that stays, the run ended at its limit: 9 of 9",)


@pytest.mark.slow  # so does tests/train/loop/test_trainer.py
def test_r5_resumed_runs_are_exact(tmp_path):
    row = count_resumes(tmp_path, stops={1: (3,), 2: (2, 4)})
    assert row.passed, row


@pytest.mark.slow  # tests/model/test_hostile.py tries each attack
def test_r8_attacks_are_refused(tmp_path):
    row = count_attacks(tmp_path)
    assert row.passed, row


@pytest.mark.slow
def test_r10_a_long_recording(tmp_path):
    row = count_long(tmp_path, hours=0.1)
    assert row.passed, row


def test_r11_a_killed_job_loses_and_doubles_nothing(tmp_path):
    row = count_killed_jobs(tmp_path, files=14, kills=2)
    assert row.passed, row


@pytest.mark.slow
def test_r11_thirty_kills(tmp_path):
    row = count_killed_jobs(tmp_path, files=300, kills=30)
    assert row.passed, row


@pytest.mark.slow
def test_r19_a_run_outlives_one_of_its_processes(tmp_path):
    row = count_lost_processes(tmp_path, kills=1, epochs=4)
    assert row.passed, row


@pytest.mark.slow
def test_r16_a_run_is_repeated(tmp_path):
    row = count_repeats(tmp_path, names=("speech_llm",))
    assert row.passed, row
