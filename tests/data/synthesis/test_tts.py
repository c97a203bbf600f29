import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from kikitori.data.synthesis import tts
from kikitori.data.synthesis.synthesizer import SpeechRequest
from kikitori.data.synthesis.tts import (
    ENGINES,
    EspeakNG,
    Festival,
    Flite,
    festival_command,
    load_engine,
    scheme_string,
)
from kikitori.errors import ConfigError

TEXT = "The old man came down to the river, and said nothing."
NASTY = '-f /etc/passwd $(touch owned) `touch owned`; touch owned\\" [[x]]") (system "touch owned") ("'


def missing(name):
    return find_spec("pyopenjtalk") is None if name == "openjtalk" else shutil.which(name) is None


def loaded(name, *voices):
    if missing(name):
        pytest.skip(f"{name} is not installed")
    return load_engine(name, voices, language="ja" if name == "openjtalk" else "en")


def seconds(sound):
    return len(sound.waveform) / sound.rate_hz


@pytest.mark.parametrize(
    ("name", "voice"),
    [
        ("espeak-ng", "en-us+f2"),
        ("flite", "kal16"),
        ("flite", "slt"),
        ("festival", "kal_diphone"),
        ("festival", "cmu_us_slt_arctic_hts"),
        ("openjtalk", "mei"),
    ],
)
def test_engines_do_what_they_are_asked(name, voice):
    try:
        engine = loaded(name, voice)
    except ConfigError as error:
        pytest.skip(str(error))  # a voice is a package of its own
    text = "今日は良い天気ですね。" if name == "openjtalk" else TEXT
    plain, fast, again = engine.speak(
        [SpeechRequest(text, voice), SpeechRequest(text, voice, speed=1.3), SpeechRequest(text, voice)]
    )
    assert 1.0 < seconds(plain) < 6.0
    assert seconds(plain) / seconds(fast) == pytest.approx(1.3, rel=0.12)
    np.testing.assert_array_equal(plain.waveform, again.waveform)  # whatever was said before
    (alone,) = engine.speak([SpeechRequest(text, voice, speed=1.3)])
    np.testing.assert_array_equal(fast.waveform, alone.waveform)
    assert engine.version()
    assert (plain.reading is not None) == (name == "openjtalk")


@pytest.mark.parametrize("name", ["espeak-ng", "flite", "festival"])
def test_no_text_is_a_command(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    engine = loaded(name)
    voice = engine.voices[0]
    sounds = engine.speak(
        [SpeechRequest(NASTY, voice), SpeechRequest("", voice), SpeechRequest("naïve “words” — 聞き取り", voice)]
    )
    assert sounds[0] is not None
    assert sounds[2] is not None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "voice"), [("espeak-ng", "xx9"), ("espeak-ng", "en-us+xx9"), ("flite", "xx9"), ("festival", "xx9")]
)
def test_a_voice_that_is_not_there_is_named(name, voice):
    with pytest.raises(ConfigError) as caught:
        loaded(name, voice)
    assert f"{name}: does not speak with the voice {voice}; " in str(caught.value)


@pytest.mark.parametrize("voice", ["", "-w", "a b", "kal_diphone)(exit", "../x", '"'])
def test_names_that_no_voice_has(voice):
    with pytest.raises(ConfigError, match="not the name of a voice"):
        load_engine("festival", [voice])


def test_engines_that_are_not_there(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setitem(__import__("sys").modules, "pyopenjtalk", None)
    for name in ENGINES[:3]:
        with pytest.raises(ConfigError, match=f"^{name}: is not installed; apt install {name}$"):
            load_engine(name)
    with pytest.raises(ConfigError, match=r"^openjtalk: is not installed; pip install 'kikitori\[synthesis\]'$"):
        load_engine("openjtalk", language="ja")
    with pytest.raises(ConfigError, match="say: no such engine; use espeak-ng, flite, festival, openjtalk"):
        load_engine("say")


@pytest.mark.parametrize(("name", "language"), [("openjtalk", "en")])
def test_engines_with_one_language(name, language):
    with pytest.raises(ConfigError, match="speaks 'ja' only, not 'en'"):
        load_engine(name, language=language)


def read_scheme(text):
    """What a reader of Scheme makes of a string, and what follows it."""
    assert text[0] == '"'
    found, rest = "", text[1:]
    while rest[0] != '"':
        if rest[0] == "\\":
            rest = rest[1:]
        found, rest = found + rest[0], rest[1:]
    return found, rest[1:]


@pytest.mark.parametrize("text", [NASTY, "\\", '"', '\\"', "a\nb\x00c", "x\\\\"])
def test_strings_of_scheme_end_where_they_should(text):
    written = scheme_string(text)
    assert written.isascii()
    assert written.isprintable()
    assert read_scheme(written) == ("".join(c if c.isprintable() else " " for c in text), "")


def test_commands_of_festival_are_closed():
    command = festival_command(SpeechRequest(NASTY, "kal_diphone"), Path("/tmp/a b.wav"))  # noqa: S108
    assert command.endswith(")\n")
    assert command.count("\n") == 1
    depth, rest = 0, command.strip()
    while rest:
        if rest[0] == '"':
            rest = read_scheme(rest)[1]
            continue
        depth += {"(": 1, ")": -1}.get(rest[0], 0)
        rest = rest[1:]
        assert depth > 0 or not rest
    assert depth == 0


def test_a_program_that_fails_gives_no_sound(tmp_path):
    script = tmp_path / "fails"
    spoil = 'for last; do :; done; case "$last" in *.wav) head -c 60 /dev/zero > "$last";; esac'
    for body in ("exit 1", spoil):
        script.write_text(f"#!/bin/sh\n{body}\n")
        script.chmod(0o755)
        request = SpeechRequest("hello", "slt")
        assert EspeakNG(str(script), ("x",)).speak([request]) == [None]
        assert Flite(str(script), ("slt",)).speak([request]) == [None]
        assert Festival(str(script), ("x",)).speak([request, request]) == [None, None]
        assert EspeakNG(str(script), ("x",)).version() == ""
    assert Flite(str(tmp_path / "none"), ("slt",)).speak([request]) == [None]


def test_a_program_that_hangs_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(tts, "TIMEOUT_S", 0.2)
    # The program speaks in the end: its sound would be there if it were waited for.
    program, sound = tmp_path / "hangs", tmp_path / "sound.wav"
    sf.write(sound, np.full(160, 0.5), 16000)
    script = f"import shutil, sys, time\ntime.sleep(2)\nshutil.copy({str(sound)!r}, sys.argv[-1])\n"
    program.write_text(f"#!{sys.executable}\n{script}")
    program.chmod(0o755)
    assert EspeakNG(str(program), ("x",)).speak([SpeechRequest("hello", "x")]) == [None]
