"""R12, R14, R15: what the tests of the server try already, counted."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from tests.processes import ROOT
from tests.score.row import Row


def count_tests(root: Path, name: str, promise: str, *files: str) -> Row:
    """Runs files of tests, slow ones too, and counts those that pass; what cannot run here is no try."""
    report = root / "report.xml"
    options = ["--junitxml", str(report), "-p", "no:cacheprovider", "-m", ""]
    subprocess.run([sys.executable, "-m", "pytest", *files, *options], cwd=ROOT, check=False, capture_output=True)
    cases = [*ElementTree.parse(report).getroot().iter("testcase")]  # noqa: S314  (our own)
    tried = [case for case in cases if case.find("skipped") is None]
    failed = [case for case in tried if case.find("failure") is not None or case.find("error") is not None]
    left_out = (f"{len(cases) - len(tried)} cannot be tried here",) if len(tried) < len(cases) else ()
    names = (f"NOT held: {case.get('classname')}.{case.get('name')}" for case in failed)
    return Row(name, promise, len(tried) - len(failed), len(tried), (*left_out, *names))
