"""The sections of a recipe for encoder, CTC heads, bridge and LLM: where each starts from, and what of it learns.

Policies follow papers.md A4 and B2.3: `full`, `frozen`, `lora`; the convolutional front end or the embeddings alone may
be kept, a component may begin to learn later than the others, and each has its factor on the learning rate.
"""

from typing import Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from kikitori.model.adapters.lora import Lora
from kikitori.model.encoder.family import Window
from kikitori.text.prompt import DRAFT_ROOM
from kikitori.train.recipe.types import STRICT, AtLeastOne, Count, Fraction, ModelPath, NotNegative, Positive


@dataclass(frozen=True, config=STRICT)
class Encoder:
    """The speech encoder.

    Attributes:
        init: Hub id, encoder folder or earlier run to start from; or
        config: a transformers configuration (with `model_type`) to start at random.
        random: Take the shape of `init` alone and draw the weights.
        changes: Entries of the configuration of `init` that are set otherwise, such as dropout and layerdrop.
        window: What a Whisper encoder reads: `padded`, 30 s whatever the utterance, or `speech`, half a second more
            than the utterance.
        policy: `full` trains it, `frozen` does not, `top` trains its last layers, `lora` low-rank updates of it.
        lora: Settings of `lora`.
        top_layers: Layers that `top` trains.
        cache: Folder that keeps the outputs of what is frozen, with `frozen` or `top`, so that they are computed once;
            16 bits a number, about 180 MB for an hour of whisper-base. None for none.
        cache_copies: Augmented copies of each utterance in the cache; epochs take turns.
        freeze_conv_front_end: Keep the convolutional front end as it is (paper A's choice).
        unfreeze_at: Optimiser steps before it begins to learn.
        lr_factor: Factor on the learning rate.
    """

    init: ModelPath | None = None
    config: dict[str, Any] | None = None
    random: bool = False
    changes: dict[str, Any] = Field(default_factory=dict)
    window: Window = "padded"
    policy: Literal["full", "frozen", "top", "lora"] = "full"
    lora: Lora | None = None
    top_layers: Count = 0
    cache: str | None = None
    cache_copies: AtLeastOne = 1
    freeze_conv_front_end: bool = False
    unfreeze_at: Count = 0
    lr_factor: Positive = 1.0

    def __post_init__(self) -> None:
        """Checks that there is one start and that all settings are used."""
        _check_start(self.init, self.config, self.random)
        _check_policy(self.policy, self.lora, self.unfreeze_at)
        if (self.policy == "top") != (self.top_layers > 0):
            raise ValueError("policy 'top' and top_layers go together")
        if self.cache is not None and self.policy not in ("frozen", "top"):
            raise ValueError("cache needs policy 'frozen' or 'top'; what learns changes its outputs")
        if self.cache_copies > 1 and self.cache is None:
            raise ValueError("cache_copies needs cache")
        if self.changes and self.init is None:
            raise ValueError("changes go with init; set them in config itself")


@dataclass(frozen=True, config=STRICT)
class Phones:
    """CTC losses over phones, which are easier to learn from little speech than spelling is.

    Attributes:
        lexicon: File of pronunciations (see `kikitori.text.lexicon`); transcripts with other words are passed over.
        weights: Encoder layer (1-based) to loss weight; each layer named gets a phone head, the last one decodes.
        upsample: Outputs of a head per frame; phones need about 25 a second.
        alignments: File of `kikitori align`; the heads' layers then learn the phone state of every frame too.
        mmi: How much the last head has to tell what was said from all else that could be (see
            `kikitori.train.losses.mmi`): 0 is CTC, 1 is MMI. It is for the end of training, when CTC has learnt where
            phones are.
    """

    lexicon: str
    weights: dict[AtLeastOne, NotNegative] = Field(min_length=1)
    upsample: AtLeastOne = 1
    alignments: str | None = None
    mmi: Fraction = 0.0


@dataclass(frozen=True, config=STRICT)
class CTC:
    """CTC losses.

    Attributes:
        weights: Encoder layer (1-based) to loss weight; each layer named gets a head over the label units.
        character_layer: Layer of an auxiliary head over characters, which training drops at the end. On little data it
            leads subword CTC off the plateau where only blanks are written. 0 means none.
        character_weight: Its loss weight.
        phones: Heads over phones, which the model keeps; None for none.
        policy: `frozen` keeps the heads of `encoder.init` as they are, also where they write other labels than the
            LLM, and asks for an encoder that is frozen too. Otherwise a speech LLM that reads their posteriors trains
            them, whatever the weights of their losses.
    """

    weights: dict[AtLeastOne, NotNegative] = Field(default_factory=dict)
    character_layer: Count = 0
    character_weight: NotNegative = 0.5
    phones: Phones | None = None
    policy: Literal["full", "frozen"] = "full"


@dataclass(frozen=True, config=STRICT)
class Bridge:
    """The network between encoder and LLM.

    Attributes:
        kind: `conv` or `ctc_compress` (paper A), which follows the deepest CTC head; `stack` or `identity`.
        stride: Frames per speech position, for `conv` and `stack`.
        blanks: `ctc_compress`: `drop` the frames whose best CTC label is blank, or `keep` them.
        repeats: `ctc_compress`: `keep` every frame of a run of equal outputs, or make the run one position, the
            `average` of its frames or their average `weighted` with their probabilities.
        init: Earlier speech LLM run to start from.
        show_ctc: Add label embeddings weighted with the CTC posteriors to the speech prompt; of frozen heads over
            characters the embeddings of the LLM's own characters.
        show_phones: The same with the posteriors of the phone head (`ctc.phones`).
        policy: `full` trains it and the interface, `frozen` does not.
        unfreeze_at: Optimiser steps before both begin to learn.
        lr_factor: Factor on the learning rate of both.
    """

    kind: Literal["conv", "stack", "identity", "ctc_compress"]
    stride: AtLeastOne = 1
    blanks: Literal["drop", "keep"] = "drop"
    repeats: Literal["keep", "average", "weighted"] = "keep"
    init: ModelPath | None = None
    show_ctc: bool = False
    show_phones: bool = False
    policy: Literal["full", "frozen"] = "full"
    unfreeze_at: Count = 0
    lr_factor: Positive = 1.0

    def __post_init__(self) -> None:
        """Checks what belongs to CTC compression alone, and that all settings are used."""
        _check_policy(self.policy, None, self.unfreeze_at)
        if self.kind != "ctc_compress":
            if (self.blanks, self.repeats) != ("drop", "keep"):
                raise ValueError("blanks and repeats need kind 'ctc_compress'")
        elif self.stride != 1:
            raise ValueError("stride does not go with kind 'ctc_compress', whose positions follow the speech")
        elif self.blanks == self.repeats == "keep":
            raise ValueError("blanks 'keep' with repeats 'keep' compresses nothing; use kind 'stack'")


@dataclass(frozen=True, config=STRICT)
class LLM:
    """The decoder-only language model.

    Attributes:
        init: Hub id, folder or earlier run to start from; or
        config: a transformers configuration (with `model_type`) to start at random; the vocabulary follows the units.
        random: Take the shape of `init` alone (and, with `units.kind: llm`, its units) and draw the weights.
        policy: `full`, `frozen` or `lora`; embedding and output matrices for new units learn in any case.
        lora: Settings of `lora`.
        freeze_embeddings: With `full`, keep the input embeddings as they are, and the output matrix where it is tied to
            them; a separate output matrix learns.
        unfreeze_at: Optimiser steps before it begins to learn.
        lr_factor: Factor on the learning rate.
        auxiliary_layer: LLM layer (1-based) that gets a cross-entropy of its own through the output matrix, in a
            `speech_llm` run; 0 means none.
    """

    init: ModelPath | None = None
    config: dict[str, Any] | None = None
    random: bool = False
    policy: Literal["full", "frozen", "lora"] = "full"
    lora: Lora | None = None
    freeze_embeddings: bool = False
    unfreeze_at: Count = 0
    lr_factor: Positive = 1.0
    auxiliary_layer: Count = 0

    def __post_init__(self) -> None:
        """Checks that there is one start and that all settings are used."""
        _check_start(self.init, self.config, self.random)
        _check_policy(self.policy, self.lora, self.unfreeze_at)
        if self.freeze_embeddings and self.policy != "full":
            raise ValueError("freeze_embeddings goes with policy 'full'; the others freeze them anyway")


Trainable = Encoder | Bridge | LLM
"""A component with a policy and a learning rate of its own."""


@dataclass(frozen=True, config=STRICT)
class Prompt:
    """The text around the speech in the LLM's input.

    Attributes:
        preset: `nue_asr`, `rwth` or `plain`; the other fields override it.
        before: Text before the speech.
        after: Text after the speech.
        bos: Token between the prompt and the transcript.
        eos: Token that ends the transcript.
        draft: File of the search (`lexicon`, `ctc_beam` or `ctc_greedy`, with what it needs) whose text stands between
            the speech and the text after it; None for none. The model keeps a copy.
        draft_room: A draft is filled up to a multiple of so many labels. A small LLM then finds each label at the same
            distance from where it is written again; 1, for a pre-trained LLM, fills up nothing.
    """

    preset: Literal["nue_asr", "rwth", "plain"] = "plain"
    before: str | None = None
    after: str | None = None
    bos: str | None = None
    eos: str | None = None
    draft: str | None = None
    draft_room: AtLeastOne = DRAFT_ROOM


def _check_start(init: str | None, config: dict[str, Any] | None, random: bool) -> None:
    if (init is None) == (config is None):
        raise ValueError("give either init or config")
    if random and init is None:
        raise ValueError("random goes with init, whose shape it takes; config starts at random anyway")


def _check_policy(policy: str, lora: Lora | None, unfreeze_at: int) -> None:
    if lora is not None and policy != "lora":
        raise ValueError("lora settings need policy 'lora'")
    if unfreeze_at and policy == "frozen":
        raise ValueError("unfreeze_at goes with a policy that learns, such as 'full'")
