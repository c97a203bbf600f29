"""Letter-to-sound rules of speech synthesisers that are installed: thousands of words in one call of a program."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence

from kikitori.errors import ConfigError, DataError
from kikitori.text.g2p.dictionary import ARPABET, bare, unstressed_vowels_marked, without_stress
from kikitori.text.lexicon import Pronunciation

AT_ONCE = 500
"""Words in one call; flite's time grows with the square."""
MAX_CHARACTERS = 100
"""Longer words are none."""
_ENGLISH = re.compile(rf"(?=.*[A-Za-z0-9])[A-Za-z0-9'][A-Za-z0-9'-]{{,{MAX_CHARACTERS}}}")
_PAUSE = re.compile(r"\bpau\b")


class FliteG2P:
    """English by flite's letter-to-sound rules (Black, Lenzo and Pagel 1998), which were trained on CMUdict.

    Its phones become those of CMUdict in lower case: `ax` is their unstressed `ah`.
    """

    name = "flite"

    def __init__(self, *, stress: bool) -> None:
        self._stress = stress

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """One pronunciation of every word of Latin letters, digits, apostrophes and hyphens.

        Raises:
            ConfigError: flite is not installed.
            DataError: It does not do its work.
        """
        asked = [word for word in words if _ENGLISH.fullmatch(word)]
        return {word: (self._read(answer),) for word, answer in _ask_all(asked, self._ask) if answer}

    def _ask(self, words: Sequence[str]) -> list[list[str]]:
        # A comma makes a pause, and so parts the answers, but hardly changes how words beside it are said.
        said = _run(["t2p", ", ".join(words)], package="flite")
        return [phrase.split() for phrase in _PAUSE.split(said) if phrase.strip()]

    def _read(self, answer: list[str]) -> Pronunciation:
        way = ["ah" if phone == "ax" else phone for phone in answer]
        unknown = [phone for phone in way if bare(phone) not in ARPABET]
        if unknown:
            raise DataError(f"t2p wrote '{unknown[0]}', which is no phone of CMUdict", remedy="use another source")
        return unstressed_vowels_marked(way) if self._stress else without_stress(way, arpabet=True)


class EspeakG2P:
    """A hundred languages by the rules of espeak-ng, in the IPA; voices such as de or en-us (`espeak-ng --voices`)."""

    def __init__(self, voice: str, *, stress: bool) -> None:
        if not voice or voice.startswith("-"):
            raise ConfigError("no voice given", where="espeak-ng", remedy="write espeak-ng:de, or another language")
        self._voice, self._stress = voice, stress
        self.name = f"espeak-ng:{voice}"

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """One pronunciation of every word but those that espeak-ng would say in another language.

        Raises:
            ConfigError: espeak-ng is not installed or has no such voice.
        """
        asked = [word for word in words if len(word) <= MAX_CHARACTERS and any(map(str.isalnum, word))]
        return {word: (self._read(answer),) for word, answer in _ask_all(asked, self._ask) if answer}

    def _ask(self, words: Sequence[str]) -> list[list[str]]:
        command = ["espeak-ng", "-q", "--ipa", "--sep=_", "-v", self._voice]
        lines = _run(command, package="espeak-ng", text="".join(f"{word}\n" for word in words)).splitlines()
        # (en) and such marks switch to the phones of another language, which this one's sounds do not include.
        return [[] if "(" in line else [phone for phone in re.split(r"[_\s]+", line) if phone] for line in lines]

    def _read(self, answer: list[str]) -> Pronunciation:
        return tuple(answer) if self._stress else tuple(filter(None, without_stress(answer, arpabet=False)))


def _ask_all(words: Sequence[str], ask: Callable[[Sequence[str]], list[list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """Words with their answers, asked together; where their numbers differ, one by one."""
    for start in range(0, len(words), AT_ONCE):
        chunk = words[start : start + AT_ONCE]
        answers = ask(chunk)
        if len(answers) != len(chunk):
            answers = [[phone for part in ask([word]) for phone in part] for word in chunk]
        yield from zip(chunk, answers, strict=True)


def _run(command: list[str], *, package: str, text: str = "") -> str:
    try:
        done = subprocess.run(command, input=text.encode(), capture_output=True, timeout=600, check=True)  # noqa: S603
    except FileNotFoundError:
        raise ConfigError(
            "is not installed", where=command[0], remedy=f"install {package}, such as from Debian"
        ) from None
    except subprocess.TimeoutExpired:
        raise DataError("does not end", where=command[0], remedy="use another source") from None
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip() or f"status {error.returncode}"
        raise ConfigError(
            f"failed ({reason})", where=" ".join(command)[:80], remedy="check its name and voice"
        ) from None
    return done.stdout.decode(errors="replace")
