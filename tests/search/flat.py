"""Searches from options without sections, and fusion from log-probabilities."""

from kikitori.io.config import validate
from kikitori.search.ctc.beam import prepare
from kikitori.search.fusion.delayed import fuse_words
from kikitori.search.fusion.shallow import fuse
from kikitori.search.old_options import new_form


def flat(search, **options):
    """A search from options such as `beam=3, score_beam=None, llm_scale=0.5`."""
    name = search().search
    return validate(search, new_form({"search": name, **options}, name, "test"), "test")


def shallow_fusion(log_probs, lengths, scorer, options):
    """Shallow fusion with log-probabilities of the CTC head, (batch, frames, labels + 1)."""
    rows = zip(log_probs, lengths.tolist(), strict=True)
    return fuse([prepare(row[:length], options) for row, length in rows], scorer, options)


def delayed_fusion(log_probs, lengths, reader, prior, options):
    """Delayed fusion with log-probabilities of the CTC head, (batch, frames, labels + 1)."""
    rows = zip(log_probs, lengths.tolist(), strict=True)
    return fuse_words([prepare(row[:length], options) for row, length in rows], reader, prior, options)
