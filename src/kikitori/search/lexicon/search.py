"""Lexicon search: the sentences of known words that a CTC head over phones and a word n-gram find likeliest.

    score(words) = log Σ p(alignment | x) + λ_ngram · log p(words, end) + λ_length · number of words

with λ the scales of the scorers, where the sum runs over the alignments of all pronunciations of the words (Miao et al.
2015, Collobert et al. 2020; the recombination of paths is that of CTC prefix search, Hannun et al. 2014). The search
itself is `kernel`, compiled; here are the batch and the n-best list.

Without pruning, and with all word histories kept apart (`histories` None), scores are exact. Where only the best few
histories of an n-gram state go on, the others come back in the n-best list beside the sentence of the one that went on,
with the scores that they would have had if what follows had the same alignments (as in a word lattice, Ney and
Aubert 1994).
"""

from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heapify, heappop, heappush
from itertools import count
from math import inf

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kikitori.scorers.ctc.pruning import candidates
from kikitori.scorers.options import CTC, LENGTH, NGRAM, PRIOR
from kikitori.search.ctc.prefix_tree import NONE
from kikitori.search.lexicon import state
from kikitori.search.lexicon.kernel import Weights, search
from kikitori.search.lexicon.state import FIRST, LexiconBeam
from kikitori.search.lexicon.trie import WordModel
from kikitori.search.options import LexiconSearch
from kikitori.text.ngram.model import advance
from kikitori.types import Hypothesis, NBest

Words = tuple[int, ...]


def lexicon_search(
    log_probs: Tensor,
    lengths: Tensor,
    model: WordModel,
    options: LexiconSearch,
    prior: Tensor | None = None,
    *,
    histories: int | None = 1,
) -> list[NBest]:
    """The n-best list of each utterance, best first, equal scores by their words; labels are numbers of `model.words`.

    It holds at least one hypothesis. Where the beam has no complete word at the end, that is the best one without the
    word that was begun; where nothing is possible, the empty one with a score of -inf. Log-probabilities of phones are
    (batch, frames, phones + 1), blank last; their prior (phones,) is added in every frame, times its scale. Of word
    histories between which the n-gram's state and the word at hand make no difference at most `histories` are kept.
    """
    values = log_probs.detach().cpu()
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    if prior is not None and options.scale(PRIOR):
        values = values.clone()
        values[..., :-1] += options.scale(PRIOR) * prior.to(values.dtype)
    rows = [row[:length] for row, length in zip(values, lengths.tolist(), strict=True)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # compiled code lets other threads run
        return [*pool.map(lambda row: _search(row, model, options, histories), rows)]


def _search(log_probs: Tensor, model: WordModel, options: LexiconSearch, histories: int | None) -> NBest:
    ngram_scale, length_scale, pruning = options.scale(NGRAM), options.scale(LENGTH), options.pruning
    score_beam = inf if pruning.score_beam is None else pruning.score_beam
    weights = Weights(ngram_scale, length_scale, options.beam, score_beam, histories or 0)
    found = candidates(log_probs, most=None, min_log_prob=pruning.min_log_prob)
    beam = state.new_beam(model.num_phones, model.start)
    beam = search(beam, model.trie, model.grammar, *found, weights)
    totals = _totals(beam, model.num_phones)
    ended = _ended(beam, totals, model, ngram_scale)
    sentences = _sentences(beam, ended, options.nbest) if totals else [(-inf, (), 0.0)]
    hypotheses = []
    for score, words, ngram in sentences:
        ctc = score - ngram_scale * ngram - length_scale * len(words)
        scores = {CTC: ctc, NGRAM: ngram, LENGTH: float(len(words))}
        hypotheses.append(Hypothesis(words, score=score, scores=scores))
    return tuple(hypotheses)


def _totals(beam: LexiconBeam, num_phones: int) -> dict[int, float]:
    """What the phones give to the histories at the end; empty where nothing is possible."""
    entries, base = beam.beam[: int(beam.counts["entries"][0])], float(beam.counts["base"][0])
    complete = entries[entries["node"] <= num_phones]
    totals: dict[int, float] = {}
    if base == -inf:
        return totals
    # A history has several entries where its last word has pronunciations with different last phones.
    for entry in complete if len(complete) else entries[:1]:
        history, total = int(entry["history"]), base + float(entry["total"])
        totals[history] = float(np.logaddexp(totals.get(history, -inf), total))
    return totals


def _ended(
    beam: LexiconBeam, totals: dict[int, float], model: WordModel, ngram_scale: float
) -> list[tuple[float, int, float]]:
    """Score, history and n-gram score of each, the end of the sentence included."""
    found = []
    for history, total in totals.items():
        words = beam.histories[history]
        end, _ = advance(model.grammar.automaton, int(words["state"]), model.end)
        score = total + float(words["bonus"]) + ngram_scale * end
        found.append((score, history, float(words["ngram"]) + end))
    return found


def _sentences(
    beam: LexiconBeam, ended: Sequence[tuple[float, int, float]], nbest: int
) -> list[tuple[float, Words, float]]:
    """Score, words and n-gram score of the best sentences, those of recombined histories among them."""
    histories = beam.histories[: int(beam.counts["histories"][0])]
    parents, words, instead = histories["parent"], histories["word"], _recombined(histories)
    paths: dict[int, Words] = {FIRST: ()}

    def words_of(history: int) -> Words:
        unknown = []
        while history not in paths:
            unknown.append(history)
            history = int(parents[history])
        path = paths[history]
        for each in reversed(unknown):
            path = paths[each] = (*path, int(words[each]))
        return path

    # A history up to where others may stand in its place that were left out before a frame, and the words behind; the
    # best first. Without the frames one might be put into its own place over and over.
    order = count()
    waiting: list[tuple[float, int, int, float, Words, float]] = [
        (-score, next(order), history, inf, (), ngram) for score, history, ngram in ended
    ]
    heapify(waiting)
    found: dict[Words, tuple[float, float]] = {}
    while waiting and len(found) < nbest:
        cost, _, history, before, behind, ngram = heappop(waiting)
        sentence = (*words_of(history), *behind)
        if sentence in found:
            continue
        found[sentence] = -cost, ngram
        while history != NONE:
            if others := instead.get(history):
                behind = sentence[len(words_of(history)) :]
                for frame, score_delta, gained, other in others:
                    if frame < before:
                        heappush(waiting, (cost - score_delta, next(order), other, frame, behind, ngram + gained))
            history = int(parents[history])
    return sorted(((score, each, ngram) for each, (score, ngram) in found.items()), key=lambda row: (-row[0], row[1]))


def _recombined(histories: NDArray[np.void]) -> dict[int, list[tuple[int, float, float, int]]]:
    """By history: in which frame others were recombined into it, their score deltas and n-gram gains, and which."""
    others = np.flatnonzero(histories["recombined_into"] != NONE)
    into = histories["recombined_into"][others]
    gained = histories["ngram"][others] - histories["ngram"][into]
    columns = histories["frame"][others], histories["score_delta"][others], gained, others
    found = defaultdict(list)
    for kept, row in zip(into.tolist(), zip(*(each.tolist() for each in columns), strict=True), strict=True):
        found[kept].append(row)
    return found
