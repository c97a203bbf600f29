"""A probe of an LLM: do our batches, caches and trees give the logits of its own forward pass?

Configurations do not say everything. Some families count positions in slots of the cache, keep a state of their own,
read the siblings in a tree or see the future, and all of them would go on to write plausible text. So every LLM reads a
few labels once, in each of the ways in which searches and scorers use it, and each is compared with a plain pass
(`probe_passes`). What does not hold is refused for the use that needs it. Windows of attention are narrowed meanwhile,
so that the few labels reach beyond them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import torch

from kikitori.errors import KikitoriError, ModelError
from kikitori.model.decoder.attention.masks import SIZES
from kikitori.model.decoder.llm import body_of, max_positions, text_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from kikitori.model.decoder.probe_passes import Part

Use = Literal["rows", "cache", "trees"]
"""Rows of a batch, read at once; labels appended to a key-value cache and taken back; branches read in one pass."""
LABELS = 7
"""Labels of the longest row."""
FEWEST = 5
"""Positions that an LLM needs to be probed."""
NARROW = 2
"""Window of attention during the probe."""

T = TypeVar("T")
REFUSALS: Mapping[Use, tuple[str, str]] = {
    "rows": ("it is of no use as a language model", "use another"),
    "cache": ("it cannot go label by label", "use it in rescoring, or another LLM"),
    "trees": ("it cannot read trees of hypotheses", "use it in rescoring or label-wise fusion, or another LLM"),
}
"""What an LLM is not good for, and what to do."""

_found: "WeakKeyDictionary[PreTrainedModel, dict[Use, str]]" = WeakKeyDictionary()


def check_scoring(llm: "PreTrainedModel") -> None:
    """Refuse an LLM that cannot score rows of labels: in rescoring, in perplexity and in training.

    Raises:
        ModelError: With what does not hold.
    """
    _refuse(llm, "rows")


def check_decoding(llm: "PreTrainedModel") -> None:
    """Refuse an LLM that cannot write or score label by label: in a speech LLM and in label-wise fusion.

    Raises:
        ModelError: With what does not hold.
    """
    _refuse(llm, "rows", "cache")


def check_trees(llm: "PreTrainedModel") -> None:
    """Refuse an LLM that cannot read growing trees of labels: in delayed fusion.

    Raises:
        ModelError: With what does not hold.
    """
    _refuse(llm, "rows", "cache", "trees")


def reads_trees(llm: "PreTrainedModel") -> bool:
    """Whether branches can be read in one pass, where otherwise each must be a row."""
    return not findings(llm, "trees")["trees"]


def findings(llm: "PreTrainedModel", *uses: Use) -> Mapping[Use, str]:
    """What does not give the logits of the LLM's own forward pass, by use; empty where all is well.

    A use is probed the first time that it is asked for, in evaluation mode and full precision. Nothing else may run the
    LLM meanwhile.
    """
    found = _found.setdefault(llm, {})
    if unknown := [use for use in uses if use not in found]:
        _probe(llm, unknown, found)
    return found


def _refuse(llm: "PreTrainedModel", *uses: Use) -> None:
    found = findings(llm, *uses)
    for use in uses:
        if found[use]:
            what, remedy = REFUSALS[use]
            remedy = f"{remedy}; docs/llms.md lists the families that can"
            raise ModelError(f"{what}: {found[use]}", where=type(llm).__name__, remedy=remedy)


def _probe(llm: "PreTrainedModel", uses: list[Use], found: dict[Use, str]) -> None:
    """Enters what is found for some uses. What does not hold for one does not for those that need it too."""
    most = min(LABELS, max_positions(llm) or LABELS)
    if most < FEWEST:
        found |= dict.fromkeys(uses, "")
        return
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))  # tables made under it could not be trained with
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(llm.device.type, enabled=False))
        stack.enter_context(_at_rest(llm))
        stack.enter_context(_narrow(llm))
        from kikitori.model.decoder.probe_passes import Passes

        passes = Passes(llm, most)
        stages = {"rows": passes.rows, "cache": passes.cache, "trees": passes.trees}
        nothing: list[Part] = []
        read = {use: _attempt(stages[use], nothing) for use in uses}
        same: dict[Use, str] = dict.fromkeys(uses, "")
        different, failure = _attempt(lambda: passes.compare({use: parts for use, (parts, _) in read.items()}), same)
        broken = ""
        for use in REFUSALS:
            if use in read:
                found[use] = broken or read[use][1] or failure or different[use]
            broken = broken or found.get(use, "")


def _attempt(attempt: Callable[[], T], nothing: T) -> tuple[T, str]:
    """What is read, and what is found meanwhile; an error is a finding too."""
    try:
        return attempt(), ""
    except KikitoriError as error:
        return nothing, error.what
    except Exception as error:  # noqa: BLE001  (what a family's code can raise has no end)
        line = (str(error).strip() or "no message").splitlines()[0][:120]
        return nothing, f"transformers stops with {type(error).__name__} ({line})"


@contextmanager
def _at_rest(llm: "PreTrainedModel") -> Iterator[None]:
    """Evaluation mode inside, and every module in its own mode again behind it."""
    learning = [module for module in llm.modules() if module.training]
    llm.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True


@contextmanager
def _narrow(llm: "PreTrainedModel") -> Iterator[None]:
    """Windows of attention of `NARROW` labels inside, where the configuration has some."""
    configs: list[Any] = [*{id(config): config for config in (text_config(llm), body_of(llm).config)}.values()]
    usual = [
        (config, name, size)
        for config in configs
        for name in SIZES.values()
        if isinstance(size := _get(config, name), int)
    ]
    try:
        for config, name, size in usual:
            setattr(config, name, min(NARROW, size))
        yield
    finally:
        for config, name, size in usual:
            setattr(config, name, size)


def _get(config: Any, name: str) -> Any:
    try:
        return getattr(config, name, None)
    except (AttributeError, RuntimeError):  # differs by layer
        return None
