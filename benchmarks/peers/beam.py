"""Beam search of a speech LLM against transformers, and what CTC scoring takes in it."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.scorers.ctc.prefix import CTCPrefixScorer
from kikitori.search.autoregressive import joint as joint_module
from kikitori.search.autoregressive.joint import decoder_beam, joint
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch, JointSearch
from peers.posteriors import simulate_ctc
from peers.timing import Row, alternate

OURS, PEER = "kikitori", "transformers"
EOS = 1
SPEECH_PROMPT, LABELS = 145, 24
CTC_FRAMES = 250


@dataclass(frozen=True)
class BeamShape:
    """An untrained LLM of Qwen2's form: layers, width, labels, and its arithmetic."""

    layers: int
    dim: int
    num_labels: int
    dtype: torch.dtype = torch.float32

    def __str__(self) -> str:
        return f"{self.layers}x{self.dim} V={self.num_labels} {str(self.dtype).removeprefix('torch.')}"


MINI = BeamShape(4, 256, 1_000)
LARGE = BeamShape(24, 896, 151_936, torch.bfloat16)
SMALL = BeamShape(2, 64, 200)


def beam_suite(rounds: int) -> Iterator[Row]:
    """Beams of a small and a large LLM, and what CTC takes of joint search with them."""
    for shape in (MINI, LARGE):
        yield from ctc_share_rows(shape, rounds)
        yield from beam_rows(shape, 8, rounds)


def small_beam(rounds: int) -> Iterator[Row]:
    """The same rows of a tiny LLM."""
    yield from ctc_share_rows(SMALL, rounds)
    yield from beam_rows(SMALL, 2, rounds)


def beam_rows(shape: BeamShape, beam: int, rounds: int) -> Iterator[Row]:
    """One utterance, a speech prompt of 145, 24 labels; the note is how many labels are equal.

    Args:
        shape: The LLM.
        beam: Hypotheses.
        rounds: Runs of each contender.
    """
    llm, prefix = beam_llm(shape), _prefix(shape)
    peer: Any = llm  # transformers types this method in some releases only
    options = BeamSearch(beam=beam, nbest=1)

    def ours() -> list[int]:
        found = decoder_beam(LLMDecoder(llm, prefix, EOS), options, Limits([LABELS], LABELS))
        return list(found[0][0].labels)

    def theirs() -> list[int]:
        found = peer.generate(
            inputs_embeds=prefix.embeds,
            attention_mask=torch.ones(1, SPEECH_PROMPT, dtype=torch.long),
            num_beams=beam,
            min_new_tokens=LABELS,
            max_new_tokens=LABELS + 1,
            do_sample=False,
            eos_token_id=EOS,
            pad_token_id=EOS,
        )
        labels: list[int] = found[0].tolist()
        return labels[:LABELS]

    contenders: dict[str, Callable[[], list[int]]] = {OURS: ours, PEER: theirs}
    # It need not end the text there, and so may prefer another one.
    equal = sum(a == b for a, b in zip(ours(), theirs(), strict=False))
    notes = {OURS: f"{LABELS} labels", PEER: f"{equal} labels equal, {transformers.__version__}"}
    seconds = alternate(contenders, rounds)
    for name in contenders:
        work = f"beam {beam} of an LLM {shape}, prompt {SPEECH_PROMPT}"
        yield Row(work, name, seconds[name], seconds[name] / seconds[OURS], notes[name])


def ctc_share_rows(shape: BeamShape, rounds: int) -> Iterator[Row]:
    """Joint search, beam 4; the note is the part of its time that CTC takes, its outputs prepared."""
    llm, prefix = beam_llm(shape), _prefix(shape)
    log_probs, _ = simulate_ctc(CTC_FRAMES, shape.num_labels)
    logits, lengths = torch.from_numpy(log_probs)[None], torch.tensor([CTC_FRAMES])

    def run() -> None:
        joint(LLMDecoder(llm, prefix, EOS), logits, lengths, JointSearch(nbest=1), Limits([LABELS], LABELS))

    run()
    shares = []
    for _ in range(rounds):
        clock = _Clock()
        with clock:
            started = time.perf_counter()
            run()
            shares.append((clock.seconds, time.perf_counter() - started))
    ctc, total = sorted(shares, key=lambda pair: pair[0] / pair[1])[len(shares) // 2]
    yield Row(f"joint search, beam 4, LLM {shape}", OURS, total, 1.0, f"CTC takes {ctc / total:.1%}")


class _Clock:
    """Sums the seconds that CTC scoring takes while it is entered."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._places: list[tuple[Any, str]] = [(joint_module, "_outputs")]
        self._places += [(CTCPrefixScorer, name) for name in ("start", "log_probs_of", "likeliest", "extend")]
        self._kept = [getattr(owner, name) for owner, name in self._places]

    def __enter__(self) -> None:
        for (owner, name), kept in zip(self._places, self._kept, strict=True):
            setattr(owner, name, self._timed(kept))

    def __exit__(self, *_: object) -> None:
        for (owner, name), kept in zip(self._places, self._kept, strict=True):
            setattr(owner, name, kept)

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **named: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **named)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


def beam_llm(shape: BeamShape) -> PreTrainedModel:
    """The LLM, untrained."""
    torch.manual_seed(0)
    heads = max(shape.dim // 64, 1)
    sizes: dict[str, Any] = {
        "hidden_size": shape.dim,
        "intermediate_size": 4 * shape.dim,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2 if heads % 2 == 0 else 1,
        "tie_word_embeddings": True,
    }
    llm: PreTrainedModel = Qwen2ForCausalLM(Qwen2Config(vocab_size=shape.num_labels, **sizes)).eval()
    for parameter in llm.parameters():
        parameter.data = parameter.data.to(shape.dtype)
    return llm


def _prefix(shape: BeamShape) -> AssembledInput:
    embeds: Tensor = torch.randn(1, SPEECH_PROMPT, shape.dim, generator=torch.Generator().manual_seed(0)) * 0.02
    nothing, length = torch.empty(0, dtype=torch.int64), torch.tensor([SPEECH_PROMPT])
    return AssembledInput(embeds.to(shape.dtype), length, length, (nothing, nothing), nothing)
