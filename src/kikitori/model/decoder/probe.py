"""A probe of an LLM: do our batches, caches and trees give the logits of its own forward pass?

Configurations do not say everything. Some families count positions in slots of the cache, keep a state of their own,
read the siblings in a tree or see the future, and all of them would go on to write plausible text. So every LLM reads a
few labels once, in each of the ways in which searches and scorers use it, and each is compared with one plain pass over
one row. What does not hold is refused for the use that needs it. Windows of attention are narrowed meanwhile, so that
the few labels reach beyond them.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import (
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from kikitori.errors import KikitoriError, ModelError
from kikitori.model.decoder.attention.masks import SIZES
from kikitori.model.decoder.base import DecoderState
from kikitori.model.decoder.cache import append, read, read_tree
from kikitori.model.decoder.llm import (
    body_of,
    embed,
    forward,
    forward_tree,
    max_positions,
    num_embeddings,
    project,
    text_config,
)
from kikitori.model.decoder.recurrent import is_recurrent

LABELS = 6
"""Labels of the longest row."""
FEWEST = 4
"""Positions that an LLM needs to be probed."""
NARROW = 2
"""Window of attention during the probe."""
TOLERANCE = 5e-4
"""Largest difference of logits in float32, root mean square over the vocabulary, in standard deviations of logits."""
ROUNDINGS = 32
"""The same in units of rounding, for coarser numbers."""
KEPT: set[Any] = {
    DummyLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
}
"""Layers of a cache whose contents a `DecoderState` keeps."""
REMEDY = "docs/llms.md lists the families that can"


@dataclass(frozen=True)
class Findings:
    """What does not give the logits of the LLM's own forward pass; empty where all is well.

    Attributes:
        rows: Rows in a batch, read at once.
        cache: Labels appended to a key-value cache and taken back.
        trees: Branches read in one pass, and behind a cache.
    """

    rows: str = ""
    cache: str = ""
    trees: str = ""


_found: WeakKeyDictionary[PreTrainedModel, Findings] = WeakKeyDictionary()


def check_scoring(llm: PreTrainedModel) -> None:
    """Refuse an LLM that cannot score rows of labels: in rescoring, in perplexity and in training.

    Raises:
        ModelError: With what does not hold.
    """
    if finding := findings(llm).rows:
        raise ModelError(
            f"it is of no use as a language model: {finding}", where=_name(llm), remedy=f"use another; {REMEDY}"
        )


def check_decoding(llm: PreTrainedModel) -> None:
    """Refuse an LLM that cannot write or score label by label: in a speech LLM and in label-wise fusion.

    Raises:
        ModelError: With what does not hold.
    """
    check_scoring(llm)
    if finding := findings(llm).cache:
        raise ModelError(
            f"it cannot go label by label: {finding}",
            where=_name(llm),
            remedy=f"use it in rescoring, or another LLM; {REMEDY}",
        )


def check_trees(llm: PreTrainedModel) -> None:
    """Refuse an LLM that cannot read growing trees of labels: in delayed fusion.

    Raises:
        ModelError: With what does not hold.
    """
    check_decoding(llm)
    if finding := findings(llm).trees:
        raise ModelError(
            f"it cannot read trees of hypotheses: {finding}",
            where=_name(llm),
            remedy=f"use it in rescoring or label-wise fusion, or another LLM; {REMEDY}",
        )


def findings(llm: PreTrainedModel) -> Findings:
    """What the probe finds, the first time that it is asked about this LLM."""
    found = _found.get(llm)
    if found is None:
        found = _found[llm] = _probe(llm)
    return found


def _probe(llm: PreTrainedModel) -> Findings:
    most = min(LABELS, max_positions(llm) or LABELS)
    if most < FEWEST:
        return Findings()
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(mode=False))  # tables made under it could not be trained with
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(llm.device.type, enabled=False))
        stack.enter_context(_at_rest(llm))
        stack.enter_context(_narrow(llm))
        probe = _Probe(llm, most)
        if rows := _attempt(probe.rows):
            return Findings(rows, rows, rows)
        cache = _attempt(lambda: _kind_of_state(llm)) or _attempt(probe.cache)
        if cache or is_recurrent(llm):
            return Findings("", cache, cache or "its layers keep a recurrent state")
        return Findings("", "", _attempt(probe.branches))


class _Probe:
    """Two rows that begin alike, and the logits of their own passes.

    Args:
        llm: In evaluation mode.
        most: Labels of the longer row.
    """

    def __init__(self, llm: PreTrainedModel, most: int) -> None:
        self._llm, self._shared = llm, most // 2
        labels = _labels(llm, 2 * most)
        self._long = labels[:most]
        self._short = torch.cat([self._long[: self._shared], labels[most : 2 * most - 1 - self._shared]])
        self._other = labels[-2:]
        self._own: list[Tensor] = []
        weights = next(llm.parameters())
        self._tolerance = max(TOLERANCE, ROUNDINGS * torch.finfo(weights.dtype).eps)

    def rows(self) -> str:
        """Both rows in a padded batch, which must not see the future either."""
        llm, shared = self._llm, self._shared
        self._own = [llm(input_ids=row[None], use_cache=False).logits[0] for row in (self._long, self._short)]
        if off := self._difference(self._own[1][:shared], 0, 0):
            return f"it sees the labels that follow (logits differ by {off})"
        lengths = torch.tensor([len(self._long), len(self._short)], device=llm.device)
        logits = project(llm, forward(llm, embed(llm, self._batch(self._long, self._short)), lengths))
        return self._compare("in a padded batch", [(logits[0], 0, 0), (logits[1, : len(self._short)], 1, 0)])

    def cache(self) -> str:
        """Both rows up to different labels, others appended and taken back, rows exchanged and copied, the rest."""
        llm, long, short, shared = self._llm, self._long, self._short, self._shared
        ids, lengths = self._batch(long[:shared], short[: shared - 1]), self._tensor([shared, shared - 1])
        nothing = DecoderState((), torch.zeros(2, 0, dtype=torch.bool, device=llm.device), torch.zeros_like(lengths))
        if is_recurrent(llm):
            hidden, state = read(llm, embed(llm, ids), lengths)
        else:
            hidden, state = append(llm, ids, nothing, lengths)
        logits = project(llm, hidden)
        if found := self._compare("behind a cache", [(logits[0], 0, 0), (logits[1, : shared - 1], 1, 0)]):
            return found
        _, grown = append(llm, self._batch(self._other, self._other), state, self._tensor([1, 2]))
        before = state if state.recurrent else grown.crop(lengths)  # what was appended must not be seen in it
        state = before.reorder(self._tensor([1, 0, 1]))
        rest, again, one = short[shared - 1 :], long[shared:], short[shared - 1 : shared]
        hidden, _ = append(llm, self._batch(rest, again, one), state, self._tensor([len(rest), len(again), 1]))
        logits = project(llm, hidden)
        return self._compare(
            "behind a cache from which labels were taken back",
            [
                (logits[0, : len(rest)], 1, shared - 1),
                (logits[1, : len(again)], 0, shared),
                (logits[2, :1], 1, shared - 1),
            ],
        )

    def branches(self) -> str:
        """Both rows as one tree beside one of them alone, in one pass and behind a cache of what they share."""
        llm, long, short, shared = self._llm, self._long, self._short, self._shared
        tree, width = torch.cat([long, short[shared:]]), len(long) + len(short) - shared
        ends = torch.tensor([[width] * shared + [len(long)] * (len(long) - shared) + [width] * (len(short) - shared)])
        ends = torch.cat([ends, torch.arange(1, width + 1)[None]]).to(llm.device)
        ends[1, : len(short)] = len(short)
        logits = project(llm, forward_tree(llm, embed(llm, self._batch(tree, short)), ends))
        parts = [(logits[0, : len(long)], 0, 0), (logits[0, len(long) :], 1, shared), (logits[1, : len(short)], 1, 0)]
        if found := self._compare("in a tree", parts):
            return found
        nothing = DecoderState((), torch.zeros(1, 0, dtype=torch.bool, device=llm.device), self._tensor([0]))
        _, state = append(llm, long[None, :shared], nothing)
        columns = torch.arange(width, device=llm.device)
        reads = (columns <= columns[:, None]) & (columns[:, None] < ends[0])
        hidden, _ = read_tree(llm, tree[None, shared:], state.layers, reads[None, shared:])
        logits = project(llm, hidden)[0]
        split = len(long) - shared
        return self._compare("in a tree behind a cache", [(logits[:split], 0, shared), (logits[split:], 1, shared)])

    def _compare(self, where: str, parts: list[tuple[Tensor, int, int]]) -> str:
        """Logits (n, vocab) with those of an own pass from a position on; what is found, if anything."""
        for logits, row, start in parts:
            if off := self._difference(logits, row, start):
                return f"logits {where} are not those of its own forward pass (they differ by {off})"
        return ""

    def _difference(self, logits: Tensor, row: int, start: int) -> str:
        """The largest difference beyond the tolerance, in standard deviations; empty if there is none."""
        own = self._own[row][start : start + len(logits)].double()
        same = (own == logits) | (own.isnan() & logits.isnan())  # what is not finite is found elsewhere
        scale = torch.where(own.isfinite(), own, 0.0).std(dim=1).clamp(min=1e-12)
        off = (torch.where(same, 0.0, own - logits).square().mean(dim=1).sqrt() / scale).max()
        return "" if bool(off <= self._tolerance) else f"{float(off):.1g} standard deviations"

    def _batch(self, *rows: Tensor) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def _tensor(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._llm.device)


def _attempt(stage: Callable[[], str]) -> str:
    """What a stage finds; an error is a finding too."""
    try:
        return stage()
    except KikitoriError as error:
        return error.what
    except Exception as error:  # noqa: BLE001  (what a family's code can raise has no end)
        line = (str(error).strip() or "no message").splitlines()[0][:120]
        return f"transformers stops with {type(error).__name__} ({line})"


def _kind_of_state(llm: PreTrainedModel) -> str:
    """Layers that keep something else than keys and values of all labels or one state, by the configuration."""
    kinds = {type(layer) for layer in DynamicCache(config=text_config(llm)).layers}
    strange = sorted(kind.__name__ for kind in kinds - KEPT)
    if "local" in getattr(text_config(llm), "attention_layers", ()):  # GPT-Neo counts its window in slots
        strange.append("local attention")
    if not strange:
        return ""
    return f"its layers keep more than keys and values ({', '.join(strange)})"


def _labels(llm: PreTrainedModel, count: int) -> Tensor:
    """Plain labels, different ones where there are enough: (count,)."""
    special = set()
    for config in (llm.config, text_config(llm)):
        for name, value in config.to_dict().items():
            if name.endswith(("_id", "_index", "_ids")):
                special |= {value} if isinstance(value, int) else set(value or ()) if isinstance(value, list) else set()
    size = num_embeddings(llm)
    plain = [label for label in range(min(size, 4 * count + len(special))) if label not in special] or [0]
    plain = plain[-count:]
    return torch.tensor([plain[place % len(plain)] for place in range(count)], device=llm.device)


@contextmanager
def _at_rest(llm: PreTrainedModel) -> Iterator[None]:
    """Evaluation mode inside, and every module in its own mode again behind it."""
    learning = [module for module in llm.modules() if module.training]
    llm.eval()
    try:
        yield
    finally:
        for module in learning:
            module.training = True


@contextmanager
def _narrow(llm: PreTrainedModel) -> Iterator[None]:
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


def _name(llm: PreTrainedModel) -> str:
    return type(llm).__name__
