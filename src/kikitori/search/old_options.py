"""Options of searches as they were once written, in today's form.

    llm_scale, ngram_scale, length_scale, ctc_scale: x   scorers: {lm|ngram|length|ctc: {scale: x}}
    prior_scale: x                                       scorers: {prior: {scale: -x}}
    lm, ngram, prior, lexicon: FILE                      scorers: {lm|ngram|prior|phones: {path: FILE}}
    lms, priors, scales: {NAME: ...}                     scorers: {NAME: ...}
    score_beam, vocabulary, ...: x                       pruning: {score_beam: x, ...}

Options that are gone are read with the value that they always had.
"""

from collections.abc import Mapping
from typing import Any

from kikitori.errors import ConfigError
from kikitori.scorers.options import CTC, LENGTH, LM, NGRAM, PHONES, PRIOR, SPEECH_LLM

SCALES = {"llm_scale": LM, "ngram_scale": NGRAM, "prior_scale": PRIOR, "length_scale": LENGTH, "ctc_scale": CTC}
"""Scorers by the option that was their scale."""
PATHS = {LM: LM, NGRAM: NGRAM, PRIOR: PRIOR, "lexicon": PHONES}
"""Scorers by the option that named their file or folder."""
SECTIONS = ("scales", "lms", "priors")
"""Sections of rescoring, by the names of scorers."""
PRUNING = ("score_beam", "frame_labels", "min_log_prob", "recombine", "vocabulary", "collapse", "window")
"""Options that stood beside the others."""
INNER = ("first", "second", "draft")
"""Sections that are searches."""
GONE: Mapping[str, object] = {
    "vocabulary_by": "max",
    "collapse_by": "mean",
    "pre_beam": 16,
    "ctc_labels": 4,
    "histories": 1,
    "unknown_score": -5.0,
    "frame_phones": None,
    "sure": None,
    "margin": 0.0,
}
"""Options that are no more, with what they always are now."""


def new_form(values: Mapping[str, Any], search: str, where: str) -> dict[str, Any]:
    """The options of a search, from a file or overrides, in today's form; what is no old option stays as it is.

    Raises:
        ConfigError: An option that is gone has another value than it always has now, or an old scale is below 0.
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key in GONE:
            if value != GONE[key]:
                remedy = f"leave it out; it is always {'null' if GONE[key] is None else GONE[key]}"
                raise ConfigError("this option is no more", where=f"{where}: {key}", remedy=remedy)
        elif key in INNER and isinstance(value, Mapping):
            found[key] = new_form(value, str(value.get("search", "")), f"{where}: {key}")
        elif key in PRUNING:
            _put(found, {"pruning": {key: value}})
        elif key in SCALES:
            name = SPEECH_LLM if key == "llm_scale" and search == "joint_time_sync" else SCALES[key]
            _put(found, {"scorers": {name: {"scale": _natural(key, value, where)}}})
        elif key in PATHS:
            _put(found, {"scorers": {PATHS[key]: value if isinstance(value, Mapping) else {"path": value}}})
        elif key not in SECTIONS or not isinstance(value, Mapping):
            _put(found, {key: value})
    for section in SECTIONS:  # scales first, as their order is that of the sum
        entries = values.get(section)
        for name, value in entries.items() if isinstance(entries, Mapping) else ():
            entry = value if isinstance(value, Mapping) else {"scale" if section == "scales" else "path": value}
            named = {"prior": True} if section == "priors" and name != PRIOR else {}
            _put(found, {"scorers": {name: {**entry, **named}}})
    return found


def _natural(key: str, value: object, where: str) -> object:
    """An old scale as what a score is multiplied by."""
    if isinstance(value, bool) or not isinstance(value, int | float) or key == "length_scale":
        return value
    if value < 0:
        name = SCALES[key]
        raise ConfigError("it has to be 0 or above", where=f"{where}: {key}", remedy=f"set scorers.{name}.scale")
    return 0.0 - value if key == "prior_scale" else value


def _put(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Puts changes into values, section by section."""
    for key, change in changes.items():
        if isinstance(change, Mapping):
            old = values.get(key)
            values[key] = old if isinstance(old, dict) else {}
            _put(values[key], change)
        else:
            values[key] = change
