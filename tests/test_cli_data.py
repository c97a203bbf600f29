"""`kikitori data synthesize` with a program of our own in the place of espeak-ng, so that it runs anywhere."""

import json
import sys

import pytest

from kikitori.data.manifest import read_manifest, write_manifest
from tests.commands import call, one_line

ESPEAK = f"""#!{sys.executable}
import array, math, sys, wave
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
text = sys.stdin.read()
if "silent" in text or options["-v"] == "nobody":
    sys.exit(1)
tone = array.array("h", (int(9000 * math.sin(0.1 * i)) for i in range(1500 * len(text))))
with wave.open(options["-w"], "wb") as sound:
    sound.setparams((1, 2, 22050, 0, "NONE", ""))
    sound.writeframes(tone.tobytes())
"""
BOOK = """Mr. Crow sat on a high branch.
The fox stood silent under the tree.
It was a very cold and windy morning.
Sing me a song, said the red fox.
He came in 1492 with three ships.
"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "espeak-ng"
    program.write_text(ESPEAK)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    (tmp_path / "book.txt").write_text(BOOK)
    return tmp_path / "book.txt"


def test_speech_from_a_book(book, tmp_path):
    row = {"audio_filepath": "x.flac", "duration": 1.0, "text": "ON A VERY COLD AND WINDY MORNING IT RAINED"}
    write_manifest(tmp_path / "test.jsonl", [row | {"split": "test"}])
    speak = (*("data", "synthesize", "--text", book, "--engine", "espeak-ng:one,two"), "--spoken-titles")
    speak = (*speak, "--avoid", f"{tmp_path}/test.jsonl:test", "--workers", 2, "-o", tmp_path / "out")
    result = call(*speak)
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{tmp_path / 'out' / 'manifest.jsonl'}\n"
    assert "left out 1: espeak-ng/" in result.stderr
    assert ": no sound\n" in result.stderr
    assert "kikitori: 2 utterances, 0.00 h" in result.stderr
    texts = [each.text for each in read_manifest(tmp_path / "out" / "manifest.jsonl").utterances]
    assert texts == ["mister Crow sat on a high branch.", "Sing me a song, said the red fox."]
    assert call(*speak).stderr == result.stderr
    assert "choose another folder" in one_line(call(*speak, "--seed", 1))
    described = json.loads((tmp_path / "out" / "synthesis.json").read_bytes())
    assert described["engines"] == {"espeak-ng": {"version": "", "voices": ["one", "two"]}}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "--text: no text given; name at least one file"),
        (("--text", "BOOK"), "--engine: no engine given; name espeak-ng, flite, festival, openjtalk"),
        (("--text", "BOOK", "--engine", "espeak-ng"), "-o: no folder given; name the folder for the recordings"),
        (("--text", "BOOK", "--engine", "flite", "-o", "OUT"), "flite: is not installed; apt install flite"),
        (("--text", "BOOK", "--engine", "espeak-ng:nobody", "-o", "OUT"), "does not speak with the voice nobody; see"),
        (
            ("--text", "BOOK", "--engine", "espeak-ng:a", "--engine", "espeak-ng", "-o", "OUT"),
            "espeak-ng: is given twice",
        ),
        (("--text", "BOOK", "--engine", "espeak-ng:a", "-o", "OUT", "--speed", 2, 1), "--speed: not a range within"),
        (("--text", "BOOK", "--engine", "espeak-ng:a", "-o", "OUT", "--longest", 2), "no sentence is left to read"),
        (("--text", "BOOK", "--engine", "espeak-ng:a", "-o", "OUT", "--characters", "z-a"), "--characters: not what"),
        (
            ("--text", "BOOK", "--engine", "espeak-ng:a", "-o", "OUT", "--avoid", "no.jsonl"),
            "no.jsonl: no such manifest",
        ),
        (("--text", "no.txt", "--engine", "espeak-ng:a", "-o", "OUT"), "no.txt: no such text file"),
    ],
)
def test_what_is_wrong_is_one_line(book, tmp_path, arguments, line):
    places = {"BOOK": book, "OUT": tmp_path / "out"}
    assert line in one_line(call("data", "synthesize", *(places.get(argument, argument) for argument in arguments)))
    assert not (tmp_path / "out" / "manifest.jsonl").exists()
