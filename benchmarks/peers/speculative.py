"""Speculative rows of `benchmarks/speech_llm_decoding.py`: drafts with slips, verified, against writing label by label.

The LLM is random, but it writes: the embedding of each label is what the output matrix has for another one, its
successor, and is large beside what the layers add. Behind a label the LLM therefore writes its successor, surely, as a
trained LLM is sure of most labels, and ends where the walk over successors meets EOS. A random LLM as it comes writes
one label for ever, or is so unsure that bfloat16 changes every second one. What a pass costs does not depend on it.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle, zip_longest
from statistics import mean
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.cache import read, step
from kikitori.model.decoder.llm import embed, project
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from kikitori.types import Hypothesis
from peers.rescoring import LARGE, MEDIUM, SMALL, Shape
from peers.timing import Row, alternate

OURS, GENERATE, GREEDY, NO_RETURN = "kikitori", "generate", "kikitori greedy", "plain after a slip"
EOS = 2
STRIDE = 151  # from a label to its successor; shares no factor with a vocabulary
PREFIX, LABELS = 145, 40
RATES = (0.0, 0.05, 0.1, 0.2, 0.3)
DRAFTS = 5
BATCH, PREFIXES, LENGTHS = 16, (87, 258), (9, 38)
DTYPES = (torch.bfloat16, torch.float32)

Run = Callable[[PreTrainedModel, AssembledInput, Sequence[int]], Hypothesis]
"""Writes the one row of a prefix, over a draft if it uses one."""


def speculative_suite(rounds: int) -> Iterator[Row]:
    """All rows: one utterance, batches, the output matrix."""
    for dtype in DTYPES:
        llm = walking_llm(LARGE, dtype)
        yield from single_rows(llm, f"{LARGE} {_name(dtype)}", rounds)
    llm = walking_llm(MEDIUM, torch.bfloat16)
    yield from batch_rows(llm, f"{MEDIUM} {_name(torch.bfloat16)}", rounds)
    yield from head_rows(llm, f"{MEDIUM} {_name(torch.bfloat16)}", rounds)


def small_speculative(rounds: int) -> Iterator[Row]:
    """The same rows of a small LLM."""
    llm = walking_llm(SMALL, torch.float32)
    yield from single_rows(llm, f"{SMALL} {_name(torch.float32)}", rounds, (0.0, 0.1))
    yield from batch_rows(llm, f"{SMALL} {_name(torch.float32)}", rounds)
    yield from head_rows(llm, f"{SMALL} {_name(torch.float32)}", rounds)


def walking_llm(shape: Shape, dtype: torch.dtype) -> PreTrainedModel:
    """A frozen random LLM that writes successors."""
    llm = shape.random_llm(torch.float32)
    embeddings: Any = llm.get_input_embeddings()
    head: Any = llm.get_output_embeddings()
    nn.init.normal_(embeddings.weight)
    head.weight = nn.Parameter(embeddings.weight.detach().roll(STRIDE, 0))  # row of t: the embedding before t
    return llm.to(dtype).requires_grad_(False)  # type: ignore[no-any-return, arg-type]


def walk(num_labels: int, vocabulary: int) -> list[int]:
    """The last labels before EOS: where a walk begins, unwritten, and so many more."""
    return [(EOS - STRIDE * back) % vocabulary for back in range(num_labels + 1, 0, -1)]


def walking_prefix(llm: PreTrainedModel, prefixes: Sequence[int], lengths: Sequence[int]) -> AssembledInput:
    """Random speech prompts of such lengths, behind each of which the LLM writes so many labels."""
    torch.manual_seed(0)
    starts = [walk(length, llm.config.vocab_size)[0] for length in lengths]
    table: Any = llm.get_input_embeddings()
    embeds = torch.randn(len(prefixes), max(prefixes), table.embedding_dim).to(table.weight.dtype)
    for row, (size, start) in enumerate(zip(prefixes, starts, strict=True)):
        embeds[row, size - 1] = table.weight[start]
        embeds[row, size:] = 0.0
    none = torch.zeros(0, dtype=torch.int64)
    return AssembledInput(embeds, torch.tensor(prefixes), torch.tensor(prefixes), (none, none), none)


def corrupt(labels: Sequence[int], rate: float, vocabulary: int, seed: int) -> list[int]:
    """A draft with a slip at so large a share of the labels: 60 % substituted, 20 % too many, 20 % missing."""
    stream = random.Random(seed)
    slips = {place: stream.random() for place in stream.sample(range(len(labels)), round(rate * len(labels)))}
    draft = []
    for place, label in enumerate(labels):
        slip = slips.get(place, 1.0)
        if slip < 0.8:
            draft.append(stream.randrange(EOS + 1, vocabulary))
        if slip >= 0.6 and not 0.8 <= slip < 1.0:
            draft.append(label)
    return draft


def single_rows(llm: PreTrainedModel, name: str, rounds: int, rates: Sequence[float] = RATES) -> Iterator[Row]:
    """One utterance, prefill included: ours for each share of slips, and what it is compared with.

    Drafts are what the LLM writes, with slips at other places in every round.
    """
    vocabulary = llm.config.vocab_size
    labels, prefix = walk(LABELS, vocabulary)[1:], walking_prefix(llm, [PREFIX], [LABELS])
    found: dict[str, list[Hypothesis]] = {}
    contenders: dict[str, Callable[[], object]] = {}

    def enter(key: str, run: Run, drafts: Sequence[Sequence[int]]) -> None:
        turns, results = cycle(drafts), found.setdefault(key, [])
        contenders[key] = lambda: results.append(run(llm, prefix, next(turns)))

    enter(GENERATE, _generate, [labels])
    enter(GREEDY, _greedy, [labels])
    for rate in rates:
        drafts = [corrupt(labels, rate, vocabulary, seed) for seed in range(DRAFTS)]
        enter(f"{OURS} {rate}", _speculate, drafts)
        enter(f"{NO_RETURN} {rate}", plain_after_a_slip, drafts)
    seconds = alternate(contenders, rounds)
    for rate in rates:
        ours = seconds[f"{OURS} {rate}"]
        for kind in (OURS, GREEDY, GENERATE, NO_RETURN):
            key = kind if kind in found else f"{kind} {rate}"
            passes = mean(row.llm_passes for row in found[key])
            differ = max(differing(row.labels, labels) for row in found[key])
            work = f"{rate:.0%} slips, {LABELS} labels, prefix {PREFIX}, {name}"
            note = f"{passes:.1f} passes after prefill, {differ} labels differ"
            yield Row(work, kind, seconds[key], seconds[key] / ours, note)


def batch_rows(llm: PreTrainedModel, name: str, rounds: int, rate: float = 0.05) -> Iterator[Row]:
    """Utterances of mixed length together: ours over drafts, ours label by label, and a batch padded on the left."""
    stream, vocabulary = random.Random(0), llm.config.vocab_size
    prefixes = [stream.randint(*PREFIXES) for _ in range(BATCH)]
    lengths = [
        round(LENGTHS[0] + (size - PREFIXES[0]) / (PREFIXES[1] - PREFIXES[0]) * (LENGTHS[1] - LENGTHS[0]))
        for size in prefixes
    ]
    prefix = walking_prefix(llm, prefixes, lengths)
    labels = [walk(length, vocabulary)[1:] for length in lengths]
    drafts = [corrupt(row, rate, vocabulary, seed) for seed, row in enumerate(labels)]
    most = [2 * length for length in lengths]
    decoder, limits = LLMDecoder(llm, prefix, EOS), Limits(most)
    contenders: dict[str, Callable[[], list[Hypothesis]]] = {
        OURS: lambda: [best for best, *_ in speculative(decoder, drafts, limits)],
        GREEDY: lambda: [best for best, *_ in greedy(decoder, limits)],
        GENERATE: lambda: generate(llm, prefix, max(lengths)),
    }
    differ = {
        key: sum(differing(row.labels, right) for row, right in zip(run(), labels, strict=True))
        for key, run in contenders.items()
    }
    seconds = alternate(contenders, rounds)
    work = f"{BATCH} utterances, {rate:.0%} slips, {LENGTHS[0]} to {LENGTHS[1]} labels, {name}"
    for key in contenders:
        yield Row(work, key, seconds[key], seconds[key] / seconds[OURS], f"{differ[key]} labels differ")


def head_rows(llm: PreTrainedModel, name: str, rounds: int) -> Iterator[Row]:
    """The frozen output matrix over the last states of a batch: ours in two dimensions, and as the slice comes."""
    head: Any = llm.get_output_embeddings()
    torch.manual_seed(0)
    states = torch.randn(8, PREFIX, head.in_features).to(head.weight.dtype)[:, -3:]
    contenders: dict[str, Callable[[], Tensor]] = {OURS: lambda: project(llm, states), "strided": lambda: head(states)}
    with torch.inference_mode():
        off = float((contenders[OURS]() - contenders["strided"]()).abs().max())
        seconds = alternate(contenders, rounds)
    for key in contenders:
        note = f"logits differ by up to {off:.1e}"
        yield Row(f"output matrix, 8x3 states, {name}", key, seconds[key], seconds[key] / seconds[OURS], note)


def differing(labels: Sequence[int], right: Sequence[int]) -> int:
    """Labels that differ, place by place, a length that differs included."""
    return sum(one != other for one, other in zip_longest(labels, right))


@torch.inference_mode()
def generate(llm: PreTrainedModel, prefix: AssembledInput, most: int) -> list[Hypothesis]:
    """Greedy search of transformers over prefixes that are padded on the left."""
    sizes: list[int] = prefix.lengths.tolist()
    longest = max(sizes)
    embeds = torch.zeros_like(prefix.embeds[:, :longest])
    mask = torch.zeros(embeds.shape[:2], dtype=torch.int64)
    for row, size in enumerate(sizes):
        embeds[row, longest - size :] = prefix.embeds[row, :size]
        mask[row, longest - size :] = 1
    model: Any = llm
    settings = {"do_sample": False, "max_new_tokens": most + 1, "eos_token_id": EOS, "pad_token_id": EOS}
    found = model.generate(inputs_embeds=embeds, attention_mask=mask, **settings).tolist()
    rows = [row[: row.index(EOS)] if EOS in row else row for row in found]
    return [Hypothesis(tuple(row), llm_passes=len(found[0]) - 1) for row in rows]


@torch.inference_mode()
def plain_after_a_slip(llm: PreTrainedModel, prefix: AssembledInput, draft: Sequence[int]) -> Hypothesis:
    """Drafting without a return: the draft counts up to its first slip, and then one label follows the other."""
    size = prefix.embeds.shape[1]
    embeds = torch.cat([prefix.embeds, embed(llm, torch.tensor([list(draft)]))], dim=1)
    hidden, state = read(llm, embeds, torch.tensor([embeds.shape[1]]))
    best: list[int] = project(llm, hidden[0, size - 1 :]).argmax(dim=-1).tolist()
    right = next((place for place, pair in enumerate(zip(draft, best, strict=False)) if pair[0] != pair[1]), len(draft))
    written, state = best[: right + 1], state.crop(torch.tensor([size + right]))
    while written[-1] != EOS and len(written) <= LABELS:
        logits, state = step(llm, torch.tensor([written[-1:]]), state)
        written.append(int(logits[0, -1].argmax()))
    return Hypothesis(tuple(written[:-1]), llm_passes=len(written) - right - 1)


def _speculate(llm: PreTrainedModel, prefix: AssembledInput, draft: Sequence[int]) -> Hypothesis:
    return speculative(LLMDecoder(llm, prefix, EOS), [draft], Limits([LABELS]))[0][0]


def _greedy(llm: PreTrainedModel, prefix: AssembledInput, _: Sequence[int]) -> Hypothesis:
    return greedy(LLMDecoder(llm, prefix, EOS), Limits([LABELS]))[0][0]


def _generate(llm: PreTrainedModel, prefix: AssembledInput, _: Sequence[int]) -> Hypothesis:
    return generate(llm, prefix, LABELS)[0]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
