"""`kikitori bench combination`: shallow fusion of a batch against the same search one utterance at a time."""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kikitori.bench.posteriors import simulate_ctc
from kikitori.bench.timing import Row, alternate
from kikitori.decoding.ctc_beam import prepare
from kikitori.decoding.options import ShallowFusionSearch
from kikitori.decoding.scorers import LMScorer, WeightedSum
from kikitori.decoding.shallow_fusion import FusedHypothesis, fuse

BATCH, BEAM = 8, 8


def fusion_rows(frames: int, num_labels: int, rounds: int) -> Iterator[Row]:
    """A batch of made-up utterances with an untrained LM of the shape of mini-en's; the note is how often it is called.

    Args:
        frames: Of each utterance.
        num_labels: Labels of CTC head and LM.
        rounds: Runs of each contender.
    """
    options = ShallowFusionSearch(beam=BEAM)
    scorer = WeightedSum([(LMScorer(_llm(num_labels), num_labels, bos_id=0, eos_id=1), options.llm_scale)])
    outputs = [simulate_ctc(frames, num_labels, seed)[0] for seed in range(BATCH)]
    utterances = [prepare(torch.from_numpy(each), options) for each in outputs]

    def together() -> list[list[FusedHypothesis]]:
        return fuse(utterances, scorer, options)

    def alone() -> list[list[FusedHypothesis]]:
        return [found for each in utterances for found in fuse([each], scorer, options)]

    calls = [row[0].calls for row in together()]
    name, other = "kikitori", "one at a time"
    seconds = alternate({name: together, other: alone}, rounds)
    work = f"shallow fusion beam {BEAM} batch {BATCH} T={frames} V={num_labels}"
    yield Row(work, name, seconds[name], 1.0, f"LM calls: {max(calls)}")
    yield Row(work, other, seconds[other], seconds[other] / seconds[name], f"LM calls: {sum(calls)}")


def _llm(num_labels: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape: dict[str, Any] = {
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    }
    llm: LlamaForCausalLM = LlamaForCausalLM(LlamaConfig(vocab_size=num_labels, **shape)).eval()
    return llm
