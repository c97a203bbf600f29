"""Lexicons from several sources in turn: the first that knows a word says how it is pronounced."""

from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from kikitori.errors import ConfigError, DataError
from kikitori.text.g2p.dictionary import Dictionary
from kikitori.text.g2p.english import EnglishWords
from kikitori.text.g2p.japanese import Kana, OpenJTalkG2P
from kikitori.text.g2p.programs import EspeakG2P, FliteG2P
from kikitori.text.lexicon import Lexicon, Pronunciation


class Pronouncer(Protocol):
    """What knows how words are pronounced."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def pronounce(self, words: Sequence[str]) -> Mapping[str, tuple[Pronunciation, ...]]:
        """Those of the words that it knows, with their pronunciations, the usual one first."""
        ...


@dataclass(frozen=True)
class Contribution:
    """What one source gave to a lexicon: so many words and new phones.

    Attributes:
        new_phones: Phones that no source before it used, in alphabetical order.
    """

    source: str
    words: int
    new_phones: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """A lexicon, what each source gave to it, and the words that none of them knew."""

    lexicon: Lexicon
    contributions: tuple[Contribution, ...]
    missing: tuple[str, ...]


def build_lexicon(words: Sequence[str], sources: Sequence[Pronouncer]) -> Built:
    """A lexicon of words, each pronounced as the first source says that knows it.

    Raises:
        DataError: No source knows any of the words.
    """
    found: dict[str, tuple[Pronunciation, ...]] = {}
    missing, contributions, phones = list(dict.fromkeys(words)), [], set[str]()
    for source in sources:
        known = source.pronounce(missing)
        used = {phone for ways in known.values() for way in ways for phone in way}
        contributions.append(Contribution(source.name, len(known), tuple(sorted(used - phones))))
        found.update(known)
        missing = [word for word in missing if word not in known]
        phones |= used
    if not found:
        raise DataError("no word is known to any source", remedy="check --text-form and the sources")
    return Built(Lexicon(found), tuple(contributions), tuple(missing))


def open_sources(names: Sequence[str], words: Sequence[str], *, stress: bool) -> list[Pronouncer]:
    """Sources by name: a file, `english` (of the files before it), `flite`, `espeak-ng:VOICE`, `kana`, `openjtalk`.

    The words are those that the lexicon is made for; `stress` keeps the marks of stress.

    Raises:
        ConfigError: There is no such source, or it is not installed.
        DataError: A file cannot be read.
    """
    sources: list[Pronouncer] = []
    for name in names:
        kind, _, voice = name.partition(":")
        match kind:
            case "english":
                files = [source.entries for source in sources if isinstance(source, Dictionary)]
                if not files:
                    raise ConfigError("no dictionary goes before it", where=name, remedy="name one first")
                sources.append(EnglishWords(ChainMap(*map(dict, files)), words))
            case "flite":
                sources.append(FliteG2P(stress=stress))
            case "espeak-ng":
                sources.append(EspeakG2P(voice, stress=stress))
            case "kana":
                sources.append(Kana())
            case "openjtalk":
                sources.append(OpenJTalkG2P())
            case _ if Path(name).is_file():
                sources.append(Dictionary(Path(name), stress=stress))
            case _:
                known = "english, flite, espeak-ng:VOICE, kana, openjtalk"
                raise ConfigError("no such source of pronunciations", where=name, remedy=f"name a file or {known}")
    return sources
