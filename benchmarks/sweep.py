"""Every decoder-only family of transformers as a tiny random model, in each use that kikitori makes of an LLM.

    make sweep                        # all families; docs/llms.md is written anew
    python benchmarks/sweep.py gemma3_text llama   # these rows anew

A use is *right* if what it gives is that of the model's own forward pass over one row without a cache, *refused* if an
error of one line says what is the matter, and *wrong* or a *traceback* otherwise: neither may be. Windows of
attention are smaller than the texts.
"""

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from logging import CRITICAL
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import logging

from families import UNBUILT, VARIANTS, VOCABULARY, families, tiny
from kikitori.errors import KikitoriError, ModelError
from kikitori.model.decoder.assemble import AssembledInput
from kikitori.model.decoder.llm import embed, forward, project
from kikitori.model.decoder.llm_decoder import LLMDecoder
from kikitori.model.decoder.probe import check_decoding, check_scoring, check_trees
from kikitori.model.folder import load_llm
from kikitori.model.safety.config import quiet_transformers
from kikitori.scorers.incremental import IncrementalLMScorer
from kikitori.scorers.language_model import LanguageModel
from kikitori.scorers.lm import LMScorer
from kikitori.scorers.options import SPEECH_LLM
from kikitori.scorers.tree import score_sequences
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.autoregressive.joint import decoder_beam
from kikitori.search.autoregressive.speculative import speculative
from kikitori.search.length import Limits
from kikitori.search.options import BeamSearch
from kikitori.types import Hypothesis

TOLERANCE = 1e-3
"""Of log-probabilities, absolute; those of these models span some ten."""
BOS, EOS = 1, 2
TABLE = Path(__file__).parents[1] / "docs" / "llms.md"
MARK = "<!-- measured by make sweep -->"


@dataclass
class Outcome:
    """What became of one use."""

    kind: str  # right, refused, wrong, traceback
    detail: str = ""


class WrongError(Exception):
    """Something else than the own pass gives."""


_OWN: dict[tuple[int, ...], Tensor] = {}
"""Passes of the model at hand, by its labels."""


def log_probs(llm: PreTrainedModel, labels: Sequence[int]) -> Tensor:
    """Of the label after each of a row (n, vocab) by the model's own plain pass."""
    row = tuple(labels)
    if row not in _OWN:
        with torch.no_grad():
            _OWN[row] = llm(input_ids=torch.tensor([row]), use_cache=False).logits[0].double().log_softmax(-1)
    return _OWN[row]


def same(found: Tensor, expected: Tensor, what: str) -> None:
    off = float((found.detach().double() - expected).abs().max())
    if not off <= TOLERANCE:
        raise WrongError(f"{what} off by {off:.2g}")


PROMPTS: tuple[tuple[int, ...], ...] = ((5, 9, 14, 7, 33, 21, 12, 40, 8), (5, 11, 6, 30), (44, 13, 27, 19, 51, 10))
TEXTS: tuple[tuple[int, ...], ...] = (
    (20, 35, 9, 61, 17, 28, 70, 33, 41, 15, 26),
    (20, 35, 9, 62, 17, 28),
    (20, 35, 9, 61, 18),
    (20, 35, 9, 61, 17, 28, 70, 39, 41, 52),
    (),
)


def batch(llm: PreTrainedModel) -> AssembledInput:
    """The prompts as what stands before the first label."""
    lengths = torch.tensor([len(prompt) for prompt in PROMPTS])
    rows = torch.nn.utils.rnn.pad_sequence([torch.tensor(prompt) for prompt in PROMPTS], batch_first=True)
    with torch.no_grad():
        embeds = embed(llm, rows)
    nothing = torch.zeros(0, dtype=torch.int64)
    return AssembledInput(embeds, lengths, lengths, (nothing, nothing), nothing)


def own_score(llm: PreTrainedModel, before: Sequence[int], text: Sequence[int], *, ended: bool = True) -> float:
    scores = log_probs(llm, (*before, *text))
    labels = (*text, EOS) if ended else text
    return sum(float(scores[len(before) - 1 + place, label]) for place, label in enumerate(labels))


def rows_at_once(llm: PreTrainedModel) -> None:
    """A padded batch, as in training."""
    prefix = batch(llm)
    with torch.no_grad():
        logits = project(llm, forward(llm, prefix.embeds, prefix.lengths))
    for prompt, found in zip(PROMPTS, logits, strict=True):
        same(found[: len(prompt)].log_softmax(-1), log_probs(llm, prompt), "a row of a batch")


def speech_llm(llm: PreTrainedModel) -> str:
    """Greedy, beam and speculative search behind prompts of different lengths, by the scores of what they write.

    Speculative search alone may be refused: the reason is returned.
    """
    check_decoding(llm)
    rows_at_once(llm)
    decoder, limits = LLMDecoder(llm, batch(llm), EOS), Limits([8, 5, 8])
    written = greedy(decoder, limits)
    for prompt, (first, *_) in zip(PROMPTS, written, strict=True):
        own = log_probs(llm, (*prompt, *first.labels))[len(prompt) - 1 :]
        best = own.max(dim=1).values
        for place, label in enumerate(first.labels):
            if float(best[place] - own[place, label]) > TOLERANCE:
                raise WrongError(f"greedy writes label {place} of a text, which is not the best")
        _check_score(llm, prompt, first, "greedy")
    for prompt, found in zip(PROMPTS, decoder_beam(decoder, BeamSearch(beam=3, nbest=2), limits), strict=True):
        for each in found:
            _check_score(llm, prompt, replace(each, score=each.scores[SPEECH_LLM]), "beam search")
    drafts = [[*first.labels[:4], 3, 4, *first.labels[5:]] for first, *_ in written]
    try:
        rewritten = speculative(decoder, drafts, limits)
    except KikitoriError as error:
        return error.what
    for (first, *_), (again, *_) in zip(written, rewritten, strict=True):
        if first.labels != again.labels:
            raise WrongError("speculative search does not write what greedy search writes")
    return ""


def _check_score(llm: PreTrainedModel, prompt: Sequence[int], found: Hypothesis, what: str) -> None:
    ended = own_score(llm, prompt, found.labels)
    open_end = own_score(llm, prompt, found.labels, ended=False)
    off = min(abs(found.score - ended), abs(found.score - open_end))
    if off > TOLERANCE * (2 + len(found.labels)):
        raise WrongError(f"the score of {what} is off by {off:.2g}")


def label_fusion(llm: PreTrainedModel) -> None:
    """Hypotheses that fork and grow label by label."""
    scorer = LMScorer(llm, VOCABULARY - 2, bos_id=BOS, eos_id=EOS)
    state = scorer.start(2)
    rows = torch.tensor([0, 0, 1])
    texts: list[tuple[int, ...]] = [(), (), ()]
    for step in range(4):
        labels = torch.tensor([[20 + step, 30], [40 + step, 31], [50, 60 + step]])
        counts = torch.tensor([1, 2, 1])
        state, _ = scorer.extend(state, rows, labels, counts)
        texts = [(*texts[0], 20 + step), (*texts[1], 40 + step, 31), (*texts[2], 50)]
        found = scorer.log_probs(state, torch.arange(3))[:, :-1]
        for text, row in zip(texts, found, strict=True):
            own = log_probs(llm, (BOS, *text))[-1, : VOCABULARY - 2]
            keep = torch.arange(len(own)) != EOS
            same(row[keep], own[keep], "fusion")
        rows = torch.tensor([1, 0, 2])
        texts = [texts[1], texts[0], texts[2]]


def delayed_fusion(llm: PreTrainedModel) -> None:
    """Texts that grow and change, as trees behind a cache."""
    check_trees(llm)
    growing = IncrementalLMScorer(_lm(llm), 2)
    for most in (2, 5, 11):
        texts = [[text[:most] for text in TEXTS], [text[:most] for text in TEXTS[2:4]]]
        for row, members in zip(growing.scores(texts), texts, strict=True):
            for score, text in zip(row, members, strict=True):
                _close(score, own_score(llm, (BOS,), text, ended=False), "delayed fusion")


def rescoring(llm: PreTrainedModel) -> None:
    """n-best lists behind BOS and behind prompts of different lengths; a text alone, as for perplexity."""
    check_scoring(llm)
    rows_at_once(llm)
    for row, texts in zip(_lm(llm).log_probs([TEXTS, TEXTS[:1]]).scores, (TEXTS, TEXTS[:1]), strict=True):
        for score, text in zip(row, texts, strict=True):
            _close(score, own_score(llm, (BOS,), text), "rescoring")
    decoder = LLMDecoder(llm, batch(llm), EOS)
    for prompt, row in zip(PROMPTS, score_sequences(decoder, [TEXTS] * len(PROMPTS)).scores, strict=True):
        for score, text in zip(row, TEXTS, strict=True):
            _close(score, own_score(llm, prompt, text), "rescoring behind speech")


def reload(llm: PreTrainedModel) -> None:
    """A folder that is written and read."""
    with TemporaryDirectory() as folder:
        with quiet_transformers():
            llm.save_pretrained(folder)
        before = log_probs(llm, TEXTS[0])
        _OWN.clear()
        try:
            again = load_llm(folder)
        except ModelError as error:
            raise ModelError(error.what) from error  # the folder's name says nothing
        same(log_probs(again, TEXTS[0]), before, "the model that was read again")


def _lm(llm: PreTrainedModel) -> LanguageModel:
    units: Any = None  # texts come in labels
    return LanguageModel(llm, units, (BOS,), EOS)


def _close(found: float, own: float, what: str) -> None:
    if not abs(found - own) <= TOLERANCE * 10:
        raise WrongError(f"{what} is off by {abs(found - own):.2g}")


USES: dict[str, Callable[[PreTrainedModel], str | None]] = {
    "speech LLM": speech_llm,
    "label-wise fusion": label_fusion,
    "delayed fusion": delayed_fusion,
    "rescoring, perplexity": rescoring,
    "reload": reload,
}
HEAD = f"| family | {' | '.join(USES)} | reason |"


def outcome(use: Callable[[PreTrainedModel], str | None], llm: PreTrainedModel) -> Outcome:
    """What becomes of one use of a model."""
    try:
        return Outcome("right", use(llm) or "")
    except KikitoriError as error:
        return Outcome("refused", str(error))
    except WrongError as error:
        return Outcome("wrong", str(error))
    except Exception as error:  # noqa: BLE001  (tracebacks are what is counted)
        return Outcome("traceback", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}")


def sweep(family: str, changes: Mapping[str, Any] | None = None) -> dict[str, Outcome]:
    """What becomes of each use of a family; a model that cannot be built has none."""
    _OWN.clear()
    try:
        llm = tiny(family, changes)
        log_probs(llm, TEXTS[0])
    except Exception as error:  # noqa: BLE001
        if family in UNBUILT:
            return {"built": Outcome("not built", UNBUILT[family])}
        return {"built": Outcome("not built", f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}")}
    return {name: outcome(use, llm) for name, use in USES.items()}


def main(names: Sequence[str]) -> None:
    """Sweeps some families or variants, all without a name, and writes their rows of the table."""
    warnings.filterwarnings("ignore")
    logging.set_verbosity(CRITICAL)
    torch.set_num_threads(1)
    cases: dict[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in families()}
    cases |= {f"{name}: {what}": (name, changes) for (name, what), changes in VARIANTS.items()}
    rows = read_rows() if names else {}
    for name in names or cases:
        found = sweep(*cases[name])
        details = dict.fromkeys(each.detail.partition("; ")[0] for each in found.values() if each.detail)
        signs = [SIGNS[found[use].kind] if use in found else "–" for use in USES]
        rows[name] = [*signs, " · ".join(details).replace("|", "/")]
        print(" | ".join([name, *rows[name]]), flush=True)
        write(rows)


SIGNS = {"right": "yes", "refused": "no", "wrong": "**wrong**", "traceback": "**traceback**"}


def read_rows() -> dict[str, list[str]]:
    """The rows of the table, by family: a sign for each use and the reason."""
    lines = TABLE.read_text(encoding="utf-8").partition(HEAD)[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines if line.startswith("| ")]
    return {name: [*rest, ""][: len(USES) + 1] for name, *rest in cells if not name.startswith("---")}


def write(rows: Mapping[str, Sequence[str]]) -> None:
    """Writes the counts and the table into docs/llms.md, behind its introduction."""
    introduction = TABLE.read_text(encoding="utf-8").partition(MARK)[0]
    plain = [row for name, row in rows.items() if ":" not in name]
    versions = f"transformers {transformers.__version__}, torch {torch.__version__.partition('+')[0]}"
    lines = [MARK, "", f"Measured with {versions}.", "", "## Counts", ""]
    lines += [f"| of {len(plain)} families | {' | '.join(SIGNS.values())} | not built |", "| --- |" + " --- |" * 5]
    for place, use in enumerate(USES):
        kinds = Counter(row[place] for row in plain)
        lines.append(f"| {use} | " + " | ".join(str(kinds[sign]) for sign in (*SIGNS.values(), "–")) + " |")
    lines += ["", "## Families", "", HEAD, "| --- |" + " --- |" * (len(USES) + 1)]
    lines += [f"| {name} | {' | '.join(rows[name])} |" for name in sorted(rows)]
    TABLE.write_text(introduction + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
