"""Fusion rows of `benchmarks/combination.py`.

Shallow fusion of a batch against the same search one utterance at a time; delayed fusion every 20 frames against every
frame.
"""

from collections.abc import Iterator
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kikitori.loading import find_model
from kikitori.scorers.base import WeightedSum
from kikitori.scorers.language_model import language_model
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.options import LM, LMOptions
from kikitori.search.ctc.beam import prepare
from kikitori.search.fusion.delayed import fuse_words
from kikitori.search.fusion.retokenizing import RetokenizingLM
from kikitori.search.fusion.shallow import fuse
from kikitori.search.options import DelayedFusionSearch, ShallowFusionSearch
from kikitori.text.units import TokenizerUnits, load_units
from kikitori.types import Hypothesis, NBest
from peers.posteriors import simulate_ctc
from peers.timing import Row, alternate

BATCH, BEAM = 8, 8


def fusion_rows(frames: int, num_labels: int, rounds: int) -> Iterator[Row]:
    """A batch of made-up utterances with an untrained LM of the shape of mini-en's; the note is how often it is called.

    Args:
        frames: Of each utterance.
        num_labels: Labels of CTC head and LM.
        rounds: Runs of each contender.
    """
    options = ShallowFusionSearch(beam=BEAM)
    scorer = WeightedSum([(LMScorer(_llm(num_labels), num_labels, bos_id=0, eos_id=1), options.scale(LM))])
    outputs = [simulate_ctc(frames, num_labels, seed)[0] for seed in range(BATCH)]
    utterances = [prepare(torch.from_numpy(each), options) for each in outputs]

    def together() -> list[NBest]:
        return fuse(utterances, scorer, options)

    def alone() -> list[NBest]:
        return [found for each in utterances for found in fuse([each], scorer, options)]

    calls = [row[0].llm_passes for row in together()]
    name, other = "kikitori", "one at a time"
    seconds = alternate({name: together, other: alone}, rounds)
    work = f"shallow fusion beam {BEAM} batch {BATCH} T={frames} V={num_labels}"
    yield Row(work, name, seconds[name], 1.0, f"LM calls: {max(calls)}")
    yield Row(work, other, seconds[other], seconds[other] / seconds[name], f"LM calls: {sum(calls)}")


def delayed_rows(frames: int, rounds: int) -> Iterator[Row]:
    """As `fusion_rows`, over mini-en's labels with an LM of the same shape whose units are one more.

    Args:
        frames: Of each utterance.
        rounds: Runs of each contender.
    """
    seldom, always = DelayedFusionSearch(beam=BEAM, trigger=20), DelayedFusionSearch(beam=BEAM, trigger=1)
    mini_en = find_model("mini-en")
    units, others = load_units(mini_en), load_units(mini_en).pretrained
    others.add_special_tokens({"additional_special_tokens": ["[MORE]"]})
    lm_units = TokenizerUnits(others)
    reader = RetokenizingLM(language_model(_llm(lm_units.size), lm_units, LMOptions("made up")), units)
    outputs = [simulate_ctc(frames, units.size, seed)[0] for seed in range(BATCH)]
    utterances = [prepare(torch.from_numpy(each), seldom) for each in outputs]

    def every_20() -> list[tuple[Hypothesis, ...]]:
        return fuse_words(utterances, reader, None, seldom)

    def every_frame() -> list[tuple[Hypothesis, ...]]:
        return fuse_words(utterances, reader, None, always)

    contenders = {"every 20 frames": every_20, "every frame": every_frame}
    calls = {name: max(nbest[0].llm_passes for nbest in run()) for name, run in contenders.items()}
    seconds = alternate(contenders, rounds)
    work = f"delayed fusion beam {BEAM} batch {BATCH} T={frames} V={units.size}"
    for name in contenders:
        yield Row(work, name, seconds[name], seconds[name] / seconds["every 20 frames"], f"LM calls: {calls[name]}")


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
