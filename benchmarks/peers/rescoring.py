"""Rescoring rows of `benchmarks/combination.py`: one pass over a trie against the two ways without one.

The n-best list is made up: a sentence with some uncertain places, each with alternatives of one label, two or none; the
hypotheses with the least cost remain. The weights are random, as time does not depend on them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import cache_argument, embed
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.scorers.tree import score_sequences
from peers.timing import Row, alternate

OURS = "kikitori"
EOS = 2
FIRST_LABEL = 3


@dataclass(frozen=True)
class Shape:
    """An LLM of Qwen2's kind.

    Attributes:
        layers: Layers.
        dim: Width.
        vocabulary: Labels.
        inner: Width of the feed-forward.
    """

    layers: int
    dim: int
    vocabulary: int
    inner: int

    def __str__(self) -> str:
        return f"{self.layers}x{self.dim} V={self.vocabulary}"

    def random_llm(self, dtype: torch.dtype) -> PreTrainedModel:
        """Such an LLM with random weights."""
        config = Qwen2Config(
            vocab_size=self.vocabulary,
            hidden_size=self.dim,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.dim // 64,
            num_key_value_heads=max(1, self.dim // 448),
            tie_word_embeddings=True,
        )
        torch.manual_seed(0)
        llm: PreTrainedModel = Qwen2ForCausalLM(config).eval()
        for parameter in llm.parameters():
            parameter.data = parameter.data.to(dtype)
        return llm


LARGE, MEDIUM, SMALL = Shape(24, 896, 151_936, 4864), Shape(12, 512, 32_000, 1408), Shape(2, 128, 500, 256)
SHAPES = (MEDIUM, LARGE)
NBEST, LABELS, PLACES, PREFIX = 32, 30, 6, 145
SEED = 73  # its trie has 373 nodes, which is also the mean over seeds; a tenth of them have more than 540


def simulate_nbest(
    num_labels: int, nbest: int = NBEST, labels: int = LABELS, places: int = PLACES, seed: int = SEED
) -> list[list[int]]:
    """Hypotheses of about `labels` labels that differ in some places, where each has 1 to 4 alternatives."""
    random = np.random.default_rng(seed)
    sentence = [[label] for label in random.integers(FIRST_LABEL, num_labels, labels).tolist()]
    uncertain = sorted(random.choice(labels, places, replace=False).tolist())
    choices: list[list[tuple[float, list[int]]]] = []
    for place in uncertain:
        choices.append([(0.0, sentence[place])])
        for _ in range(int(random.integers(1, 5))):
            size = int(random.choice([0, 1, 2], p=[0.1, 0.8, 0.1]))
            choices[-1].append((float(random.exponential()), random.integers(FIRST_LABEL, num_labels, size).tolist()))
    ways = sorted(product(*choices), key=lambda way: sum(cost for cost, _ in way))[:nbest]
    found = []
    for way in ways:
        pieces = dict(zip(uncertain, (labels for _, labels in way), strict=True))
        found.append(list(chain.from_iterable(pieces.get(place, own) for place, own in enumerate(sentence))))
    return found


def rescoring_rows(shape: Shape, rounds: int, dtype: torch.dtype = torch.bfloat16) -> Iterator[Row]:
    """Ours, a padded batch and a shared-prefix cache through transformers, in the same arithmetic."""
    llm = shape.random_llm(dtype)
    sequences = simulate_nbest(shape.vocabulary)
    none = torch.zeros(0, dtype=torch.int64)
    with torch.inference_mode():
        embeds = embed(llm, torch.arange(PREFIX)[None] % shape.vocabulary)
    prefix = AssembledInput(embeds, torch.tensor([PREFIX]), torch.tensor([PREFIX]), (none, none), none)
    decoder = LLMDecoder(llm, prefix, EOS)
    found = score_sequences(decoder, [sequences])
    contenders: dict[str, Callable[[], list[float]]] = {
        OURS: lambda: score_sequences(decoder, [sequences]).scores[0],
        "padded batch": lambda: padded_batch(llm, embeds, sequences),
        "shared-prefix cache": lambda: shared_prefix(llm, embeds, sequences),
    }
    seconds = alternate(contenders, rounds)
    work = f"rescoring {len(sequences)}-best prefix {PREFIX} {shape} {str(dtype).removeprefix('torch.')}"
    ratio = f"{found.labels} labels as {found.nodes} nodes, {found.labels / found.nodes:.2f}x fewer"
    for name, run in contenders.items():
        off = max(abs(one - other) for one, other in zip(run(), found.scores[0], strict=True))
        note = ratio if name == OURS else f"transformers; scores differ by up to {off:.1e}"
        yield Row(work, name, seconds[name], seconds[name] / seconds[OURS], note)


@torch.inference_mode()
def padded_batch(llm: PreTrainedModel, prefix: Tensor, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Each hypothesis a row of its own behind the prefix (1, n, dim); logits of the labels alone."""
    labels, valid = _padded(sequences)
    embeds = torch.cat([prefix.expand(len(sequences), -1, -1), embed(llm, labels)], dim=1)
    mask = torch.cat([torch.ones(len(sequences), prefix.shape[1], dtype=torch.bool), valid], dim=1)
    model: Any = llm
    hidden = model.get_decoder()(inputs_embeds=embeds, attention_mask=mask.long(), use_cache=False).last_hidden_state
    return _sums(llm, hidden[:, prefix.shape[1] - 1 :], sequences)


@torch.inference_mode()
def shared_prefix(llm: PreTrainedModel, prefix: Tensor, sequences: Sequence[Sequence[int]]) -> list[float]:
    """The prefix read once, its cache repeated, then each hypothesis a row of its own."""
    labels, valid = _padded(sequences)
    model: Any = llm
    decoder, cache = model.get_decoder(), DynamicCache()
    first = decoder(
        inputs_embeds=prefix, use_cache=True, **{cache_argument(type(decoder).forward): cache}
    ).last_hidden_state[:, -1:]
    cache.batch_repeat_interleave(len(sequences))
    mask = torch.cat([torch.ones(len(sequences), prefix.shape[1], dtype=torch.bool), valid], dim=1)
    output = decoder(
        inputs_embeds=embed(llm, labels), attention_mask=mask.long(), **{cache_argument(type(decoder).forward): cache}
    )
    hidden = torch.cat([first.expand(len(sequences), -1, -1), output.last_hidden_state], dim=1)
    return _sums(llm, hidden, sequences)


def _padded(sequences: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Labels (batch, longest) and which of them are real."""
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    rows = [torch.tensor(sequence, dtype=torch.int64) for sequence in sequences]
    labels = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return labels, torch.arange(labels.shape[1]) < lengths[:, None]


def _sums(llm: PreTrainedModel, hidden: Tensor, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Scores from the states before each label and before the end, (batch, longest + 1, dim), by torch alone."""
    contexts = torch.cat([states[: len(sequence) + 1] for states, sequence in zip(hidden, sequences, strict=True)])
    labels = torch.tensor([label for sequence in sequences for label in (*sequence, EOS)])
    head: Any = llm.get_output_embeddings()
    steps = head(contexts).float().log_softmax(dim=-1).gather(1, labels[:, None])[:, 0]
    return [float(part.sum()) for part in steps.split([len(sequence) + 1 for sequence in sequences])]
