import shutil
import sys

import pytest

from kikitori.errors import ConfigError, DataError
from kikitori.text.g2p import programs
from kikitori.text.g2p.programs import EspeakG2P, FliteG2P

FLITE = pytest.mark.skipif(shutil.which("t2p") is None, reason="flite is not installed")
ESPEAK = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
T2P = """
words = sys.argv[1].split(", ")
print("pau", " pau ".join(SOUNDS[word] for word in words), "pau")
"""
NG = """
if "xx" in sys.argv:
    sys.exit("Error: The specified espeak-ng voice does not exist.")
for line in sys.stdin:
    print(SOUNDS[line.strip()])
"""


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a stand-in for a program, which knows a few words."""
    if sys.platform == "win32":
        pytest.skip("programs are no scripts there")

    def write(name, code, sounds):
        (tmp_path / name).write_text(f"#!{sys.executable}\nimport sys\nSOUNDS = {sounds!r}\n{code}")
        (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))

    return write


SOUNDS = {"hello": "hh ax l ow1", "nurse": "n er1 s", "o'er": "er1"}


def test_flite_becomes_cmudict(program):
    program("t2p", T2P, SOUNDS)
    words = [*SOUNDS, "--", "naïve", "a.m.", "-h", "x" * 1000]
    assert FliteG2P(stress=False).pronounce(words) == {
        "hello": (("hh", "ah", "l", "ow"),),
        "nurse": (("n", "er", "s"),),
        "o'er": (("er",),),
    }
    assert FliteG2P(stress=True).pronounce(["hello"]) == {"hello": (("hh", "ah0", "l", "ow1"),)}


@pytest.mark.parametrize("at_once", [1, 2, 500])
@pytest.mark.parametrize(("odd", "known"), [("p ao1 z pau z", {"odd": (("p", "ao", "z", "z"),)}), ("", {})])
def test_answers_that_do_not_fit_are_asked_one_by_one(program, monkeypatch, at_once, odd, known):
    monkeypatch.setattr(programs, "AT_ONCE", at_once)
    program("t2p", T2P, {**SOUNDS, "odd": odd})
    usual = FliteG2P(stress=False).pronounce(["hello", "nurse"])
    assert FliteG2P(stress=False).pronounce(["hello", "odd", "nurse"]) == {**usual, **known}


def test_phones_of_another_flite_are_refused(program):
    program("t2p", T2P, {"hello": "h @ l oU"})
    with pytest.raises(DataError, match="'h', which is no phone of CMUdict"):
        FliteG2P(stress=False).pronounce(["hello"])


def test_espeak_writes_the_ipa(program):
    program("espeak-ng", NG, {"Haus": "h_ˈaʊ_s", "Jo-Jo": "j_ˈoː j_ˈoː", "the": "(en)_ð_ə_(de)", "stumm": ""})
    words = ["Haus", "the", "Jo-Jo", "stumm", "--"]
    known = EspeakG2P("de", stress=False).pronounce(words)
    assert known == {"Haus": (("h", "aʊ", "s"),), "Jo-Jo": (("j", "oː", "j", "oː"),)}
    assert EspeakG2P("de", stress=True).pronounce(["Haus"]) == {"Haus": (("h", "ˈaʊ", "s"),)}


def test_voices_that_are_not_there(program):
    program("espeak-ng", NG, {})
    with pytest.raises(ConfigError, match=r"-v xx: failed \(Error: The specified espeak-ng voice does not exist"):
        EspeakG2P("xx", stress=False).pronounce(["Haus"])
    for voice in ("", "-w"):
        with pytest.raises(ConfigError, match="write espeak-ng:de"):
            EspeakG2P(voice, stress=False)


def test_programs_that_are_not_installed(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for source in (FliteG2P(stress=False), EspeakG2P("de", stress=False)):
        with pytest.raises(ConfigError, match="is not installed; install"):
            source.pronounce(["a"])
        assert source.pronounce(["--"]) == {}


@FLITE
def test_flite_itself():
    words = ["hello", "frabjous", "jarndyce's", "o'er", "well-known", "the"]
    together = FliteG2P(stress=False).pronounce(words)
    assert together["hello"] == (("hh", "ah", "l", "ow"),)
    assert list(together) == words
    assert together == {word: ways for one in words for word, ways in FliteG2P(stress=False).pronounce([one]).items()}


@ESPEAK
def test_espeak_itself():
    known = EspeakG2P("de", stress=False).pronounce(["Haus", "Straße", "--", "a.b", "12"])
    assert known["Haus"] == (("h", "aʊ", "s"),)
    assert list(known) == ["Haus", "Straße", "a.b", "12"]
    with pytest.raises(ConfigError, match="voice does not exist"):
        EspeakG2P("xx", stress=False).pronounce(["Haus"])
