"""Searches with scales: which n-best lists show what they weigh, other scales put into them, their file.

A scale is natural here, what a share is multiplied by (papers.md B3.5): a prior that is subtracted has one below 0.
Options of one-pass searches have their own names, and `prior_scale` is what is subtracted.
"""

from collections.abc import Collection, Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from kikitori.errors import ModelError
from kikitori.io.model_folder import LM as LM_FOLDER
from kikitori.io.model_folder import PRIOR as PRIOR_FILE
from kikitori.scorers.options import LENGTH, LM, NGRAM, PRIOR, LMOptions, PriorOptions
from kikitori.search.options import (
    CTCBeamSearch,
    Decoding,
    DelayedFusionSearch,
    FrameBeam,
    LexiconSearch,
    RescoringSearch,
    ShallowFusionSearch,
)

OnePass = ShallowFusionSearch | DelayedFusionSearch | LexiconSearch
Scaled = RescoringSearch | OnePass
ONE_PASS: Mapping[str, tuple[str, float]] = {
    LM: ("llm_scale", 1.0),
    NGRAM: ("ngram_scale", 1.0),
    PRIOR: ("prior_scale", -1.0),
    LENGTH: ("length_scale", 1.0),
}
"""Options of a one-pass search by the share that they weigh, and their sign."""
LEXICON_NBEST = 200
"""Hypotheses of a lexicon search on which its scales are tuned."""


def partner_shares(options: Scaled, stored: Collection[str], folder: Path | None) -> list[str]:
    """The shares of a search, CTC's left out: of what it names, and of what lies in the recogniser's folder.

    Args:
        options: The search.
        stored: Shares that n-best lists have brought along.
        folder: The recogniser's.
    """
    if isinstance(options, LexiconSearch):
        return [NGRAM, LENGTH]
    if isinstance(options, RescoringSearch):
        first = [NGRAM] if isinstance(options.first, LexiconSearch) else []
        return [*first, *options.lms, *options.priors, *options.scales, *stored]
    named = options.ngram if isinstance(options, ShallowFusionSearch) else None
    lm = named is None or options.lm is not None or LM in stored or _own(folder, LM_FOLDER) is not None
    prior = options.prior is not None or options.prior_scale != 0.0 or PRIOR in stored
    prior = prior or _own(folder, PRIOR_FILE) is not None
    ngram = isinstance(options, ShallowFusionSearch) and (named is not None or NGRAM in stored)
    return [name for name, there in ((LM, lm), (NGRAM, ngram), (PRIOR, prior), (LENGTH, True)) if there]


def with_scales(options: Scaled, scales: Mapping[str, float]) -> Scaled:
    """A search with other scales, natural ones by the names of shares; CTC's is 1.

    What has none, or 0, counts 0; rescoring then has no need of the language model or the prior either.
    """
    if isinstance(options, RescoringSearch):
        used = {name: scale for name, scale in scales.items() if scale != 0.0}
        return _weighing(options, used)
    weights: dict[str, Any] = {
        key: sign * scales.get(name, 0.0) + 0.0
        for name, (key, sign) in ONE_PASS.items()
        if hasattr(options, key) and not (name == PRIOR and isinstance(options, LexiconSearch))  # of frames, no share
    }
    return replace(options, **weights)


def list_search(options: Scaled, names: Collection[str], folder: Path | None) -> RescoringSearch:
    """The search whose n-best lists are in the order of CTC, and have some shares that another search weighs.

    Args:
        options: That search. The CTC beam of one in one pass is widened to that of rescoring; the lists of a lexicon
            search are its own.
        names: The shares.
        folder: The recogniser's, for a language model or a prior that the options do not name.

    Raises:
        ModelError: One of them is not named, and not in that folder.
    """
    scales = dict.fromkeys(names, 0.0)
    if isinstance(options, RescoringSearch):
        return _weighing(options, scales)
    if isinstance(options, LexiconSearch):
        if other := [name for name in names if name not in (NGRAM, LENGTH)]:
            remedy = f"tune {NGRAM} and {LENGTH} here, and the rest for --decoding rescoring"
            raise ModelError("it is no share of a lexicon search", where=f"decoding.{other[0]}", remedy=remedy)
        return RescoringSearch(first=replace(options, nbest=max(LEXICON_NBEST, options.nbest)), scales=scales)
    wide = RescoringSearch().first
    shared = {field.name: getattr(options, field.name) for field in fields(FrameBeam) if field.name != "search"}
    shared |= {"beam": max(wide.beam, options.beam), "nbest": max(wide.nbest, options.nbest)}
    lm, prior = options.lm or _own(folder, LM_FOLDER), options.prior or _own(folder, PRIOR_FILE)
    partners = {LM: lm, NGRAM: getattr(options, "ngram", None), PRIOR: prior}
    for name, partner in partners.items():
        if name in names and partner is None:
            where, remedy = f"decoding.{name}", "name it there, or the recogniser's folder with --model"
            raise ModelError("nothing is named, and nothing lies in the model folder", where=where, remedy=remedy)
    lms = {name: partners[name] for name in (LM, NGRAM) if name in names}
    return RescoringSearch(
        first=CTCBeamSearch(**shared),
        lms={name: each if isinstance(each, LMOptions) else LMOptions(str(each)) for name, each in lms.items()},
        priors={PRIOR: PriorOptions(str(prior))} if PRIOR in names else {},
        scales=scales,
    )


def decoding_yaml(options: Decoding) -> str:
    """The options that differ from a search's own, as the text of a YAML file."""
    import yaml

    values = {"search": options.search} | _changed(options, type(options)())
    if isinstance(options, RescoringSearch) and "first" in values:
        named = {"search": options.first.search} if isinstance(options.first, LexiconSearch) else {}
        values["first"] = named | _changed(options.first, type(options.first)())
    if isinstance(options, RescoringSearch) and options.lms:
        lms = options.lms.items()
        values["lms"] = {name: {"path": lm.path} | _changed(lm, LMOptions(lm.path)) for name, lm in lms}
    if isinstance(options, RescoringSearch) and options.priors:
        priors = options.priors.items()
        values["priors"] = {name: {"path": p.path} | _changed(p, PriorOptions(p.path)) for name, p in priors}
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def _weighing(options: RescoringSearch, scales: Mapping[str, float]) -> RescoringSearch:
    """Rescoring with what has a scale alone, and the language models whose labels its priors count."""
    priors = {name: prior for name, prior in options.priors.items() if name in scales}
    counted = {prior.lm: 0.0 for prior in priors.values() if prior.lm is not None}
    lms = {name: lm for name, lm in options.lms.items() if name in scales or name in counted}
    return replace(options, lms=lms, priors=priors, scales={**counted, **scales})


def _own(folder: Path | None, name: str) -> Path | None:
    """What lies in the recogniser's folder."""
    return folder / name if folder is not None and (folder / name).exists() else None


def _changed(options: Any, plain: Any) -> dict[str, Any]:
    defaults = asdict(plain)
    return {key: value for key, value in asdict(options).items() if value != defaults[key]}
