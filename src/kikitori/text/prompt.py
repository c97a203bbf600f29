"""The LLM input as a list of typed segments: text, speech, draft, target.

A `PromptTemplate` says in words what surrounds the speech; `compile_prompt` turns it into labels of one vocabulary.
Concatenation, masks and the labels that count for the loss follow from `Prompt.segments` (model/decoder/assemble.py).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from kikitori.errors import ConfigError
from kikitori.text.units import LabelUnits

DRAFT_ROOM = 128
"""Labels that the place of a draft is a multiple of, unless the model says otherwise."""

OWN = "own"
"""As `bos` or `eos` of a template: the vocabulary's own label; its EOS also serves as BOS where it has none."""

_SPECIAL = re.compile(r"(<[^<>\s]+>|\[[A-Z]+\])")  # <s>, <|im_start|>, [SEP]


@dataclass(frozen=True)
class Text:
    """Labels that are given, not predicted."""

    labels: tuple[int, ...]


@dataclass(frozen=True)
class Speech:
    """The place of the speech prompt."""


@dataclass(frozen=True)
class Draft:
    """The place of what a first search has found, in label units; the LLM reads it beside the speech."""


@dataclass(frozen=True)
class Target:
    """The place of the transcript; it and the EOS after it count for the loss."""


Segment = Text | Speech | Draft | Target


@dataclass(frozen=True)
class PromptTemplate:
    """What surrounds the speech, in words.

    Attributes:
        bos: Token between the text and the target: `OWN`, a token, or None for none.
        eos: Token that ends the target: `OWN` (also None) or a token.
        special_tokens: Whether tokens such as `<s>` and `[SEP]` in the texts are single items of the vocabulary; if
            not, they go to the tokenizer like any other text.
        draft: Whether a draft stands between the speech and the text after it.
        draft_room: A draft is filled up with EOS to a multiple of so many labels (`Prompt`).
    """

    before: str = ""
    after: str = ""
    bos: str | None = OWN
    eos: str | None = OWN
    special_tokens: bool = True
    draft: bool = False
    draft_room: int = DRAFT_ROOM


@dataclass(frozen=True)
class Prompt:
    """A template in the labels of one vocabulary.

    A draft is filled up with EOS to a multiple of `draft_room` labels. With a large room each of its labels stands at
    the same distance from where it is written again in all but the longest utterances: a small LLM, trained from
    nothing, need not find it by what stands around. A pre-trained LLM can, and 1 spares it the positions.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    bos: int | None
    eos: int
    draft: bool = False
    draft_room: int = DRAFT_ROOM

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The LLM input in order: text, speech, draft, text with BOS, target."""
        after = self.after if self.bos is None else (*self.after, self.bos)
        draft = (Draft(),) if self.draft else ()
        return (Text(self.before), Speech(), *draft, Text(after), Target())

    def filled_up(self, draft: Sequence[int]) -> list[int]:
        """A draft as the LLM reads it."""
        return [*draft, *[self.eos] * (-len(draft) % self.draft_room)]


NUE_ASR = PromptTemplate(before="<s>", after="[SEP]", bos=None, eos="</s>")
"""Nue-ASR: marks in place of an instruction, and no BOS after the speech."""

RWTH = PromptTemplate(before="USER: ", after="Transcribe speech to text. ASSISTANT: ", special_tokens=False)
"""The prefix LLM of "Integration vs. Combination": an instruction in plain words, then BOS."""

PLAIN = PromptTemplate()
"""No text at all: speech, BOS, target."""

PRESETS = {"nue_asr": NUE_ASR, "rwth": RWTH, "plain": PLAIN}
"""The templates by the names that recipes use."""


def compile_prompt(template: PromptTemplate, units: LabelUnits) -> Prompt:
    """Look up the labels of a template.

    Raises:
        ConfigError: A special token, BOS or EOS of the template is not one item of the vocabulary.
    """
    own_bos = units.eos_id if units.bos_id is None else units.bos_id
    bos = None if template.bos is None else _label(template.bos, own_bos, units, "prompt.bos")
    eos = _label(OWN if template.eos is None else template.eos, units.eos_id, units, "prompt.eos")
    before = _encode(template.before, units, template.special_tokens, "prompt.before")
    after = _encode(template.after, units, template.special_tokens, "prompt.after")
    return Prompt(before, after, bos, eos, template.draft, template.draft_room)


def _encode(text: str, units: LabelUnits, special_tokens: bool, where: str) -> tuple[int, ...]:
    """Encode a text, special tokens as single labels and the stretches between them on their own."""
    if not special_tokens:
        return tuple(units.encode(text)) if text else ()
    labels: list[int] = []
    for piece in _SPECIAL.split(text):
        if not _SPECIAL.fullmatch(piece):
            labels.extend(units.encode(piece) if piece else [])
        elif (label := units.special_id(piece)) is not None:
            labels.append(label)
        else:
            raise ConfigError(
                f"{piece!r} is not an item of the vocabulary",
                where=where,
                remedy="choose another prompt, or set prompt.special_tokens to false to spell it as text",
            )
    return tuple(labels)


def _label(token: str, own: int, units: LabelUnits, where: str) -> int:
    """Find one label: the vocabulary's own, a special token, or a text of one label such as a newline."""
    if token == OWN:
        return own
    if (label := units.special_id(token)) is not None:
        return label
    labels = units.encode(token)
    if len(labels) != 1:
        raise ConfigError(
            f"{token!r} takes {len(labels)} labels of the vocabulary", where=where, remedy=f"name one item, or {OWN!r}"
        )
    return labels[0]
