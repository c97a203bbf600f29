"""What a new process loads before it writes a text."""

import json
import subprocess
import sys

from kikitori.loading import BUNDLED

SAMPLE = BUNDLED.parents[1] / "samples" / "2136-5147-0021.opus"
HEAVY = ("transformers", "sympy", "torch._dynamo", "sentencepiece", "matplotlib", "pandas", "scipy", "ray", "av")
PROGRAM = f"""
import json, sys
from kikitori.cli import app
app({["transcribe", str(SAMPLE), "--device", "cpu", "--decoding", "greedy"]}, standalone_mode=False)
print(json.dumps([name for name in {HEAVY} if name in sys.modules]))
"""


def test_the_bundled_recogniser_needs_no_transformers():
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)
    transcript, loaded = done.stdout.splitlines()
    assert "drawing" in transcript.lower()
    assert json.loads(loaded) == []
