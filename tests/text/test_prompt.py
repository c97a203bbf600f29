from collections.abc import Sequence
from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from kikitori.errors import ConfigError
from kikitori.text.prompt import NUE_ASR, OWN, PLAIN, PRESETS, RWTH, Draft, Prompt, PromptTemplate, Speech, Target, Text
from kikitori.text.prompt import compile_prompt as compile_

SPECIAL = {"<s>": 1, "</s>": 2, "[SEP]": 3, "<|end|>": 4}


@dataclass(frozen=True)
class CharacterUnits:
    """Characters as 100 + code point, and four special tokens."""

    bos_id: int | None = 1
    eos_id: int = 2
    size: int = 400

    def encode(self, text: str) -> list[int]:
        return [100 + ord(character) for character in text]

    def decode(self, labels: Sequence[int]) -> str:
        return "".join(chr(label - 100) for label in labels)

    def special_id(self, token: str) -> int | None:
        return SPECIAL.get(token)


UNITS = CharacterUnits()


def spelled(text: str) -> tuple[int, ...]:
    return tuple(UNITS.encode(text))


def test_nue_asr_is_marks_only():
    prompt = compile_(NUE_ASR, UNITS)
    assert prompt == Prompt(before=(1,), after=(3,), bos=None, eos=2)
    assert prompt.segments == (Text((1,)), Speech(), Text((3,)), Target())


def test_rwth_is_words_then_bos():
    prompt = compile_(RWTH, UNITS)
    assert prompt.before == spelled("USER: ")
    assert prompt.after == spelled("Transcribe speech to text. ASSISTANT: ")
    assert (prompt.bos, prompt.eos) == (1, 2)
    assert prompt.segments[2] == Text((*prompt.after, 1))


def test_bos_is_the_eos_of_a_vocabulary_without_bos():
    assert compile_(RWTH, CharacterUnits(bos_id=None, eos_id=9)).bos == 9
    assert compile_(PLAIN, CharacterUnits(bos_id=0, eos_id=9)) == Prompt((), (), 0, 9)


def test_plain_has_no_text():
    assert compile_(PLAIN, UNITS).segments == (Text(()), Speech(), Text((1,)), Target())


def test_special_tokens_inside_text():
    template = PromptTemplate(before="a<s>b[SEP]", after="<|end|>")
    prompt = compile_(template, UNITS)
    assert (prompt.before, prompt.after) == ((197, 1, 198, 3), (4,))
    assert compile_(replace(template, special_tokens=False), UNITS).before == spelled("a<s>b[SEP]")


def test_brackets_that_are_no_tokens_stay_text():
    assert compile_(PromptTemplate(before="1 < 2 > [0] [a b] <>"), UNITS).before == spelled("1 < 2 > [0] [a b] <>")


def test_bos_and_eos_can_be_chosen():
    prompt = compile_(PromptTemplate(bos="[SEP]", eos="\n"), UNITS)
    assert (prompt.bos, prompt.eos) == (3, 110)
    prompt = compile_(PromptTemplate(bos=None, eos=None), UNITS)
    assert (prompt.bos, prompt.eos) == (None, 2)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (PromptTemplate(before="<unheard>"), r"prompt.before: '<unheard>' is not an item"),
        (PromptTemplate(after="[CLS]"), r"prompt.after: '\[CLS\]' is not an item"),
        (PromptTemplate(bos="<x>"), r"prompt.bos: '<x>' takes 3 labels"),
        (PromptTemplate(eos=""), r"prompt.eos: '' takes 0 labels"),
    ],
)
def test_tokens_that_the_vocabulary_lacks_are_refused(template, message):
    with pytest.raises(ConfigError, match=message):
        compile_(template, UNITS)


def test_presets_by_name_and_frozen():
    assert PRESETS == {"nue_asr": NUE_ASR, "rwth": RWTH, "plain": PLAIN}
    assert PLAIN.bos == PLAIN.eos == OWN
    with pytest.raises(FrozenInstanceError):
        PLAIN.before = "x"


def test_a_draft_follows_the_speech():
    prompt = compile_(replace(RWTH, draft=True), UNITS)
    plain = compile_(RWTH, UNITS).segments
    assert prompt.segments == (*plain[:2], Draft(), *plain[2:])
    assert Draft() not in plain
