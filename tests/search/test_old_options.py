"""Old names of options: every file of the repository as it once was, and overrides."""

from pathlib import Path

import pytest
import yaml

from kikitori.errors import ConfigError
from kikitori.search.old_options import GONE
from kikitori.search.options import JointSearch, ShallowFusionSearch, load_decoding, with_overrides

ROOT = Path(__file__).parents[2]
OLD = yaml.safe_load(Path(__file__).with_name("old_searches.yaml").read_text())
"""Committed searches in the old form, by their path."""


@pytest.mark.parametrize("path", OLD)
def test_committed_searches_are_what_they_were(path, tmp_path):
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(OLD[path], sort_keys=False))
    assert load_decoding(file) == load_decoding(ROOT / path)


@pytest.mark.parametrize(
    ("search", "old", "new"),
    [
        ("shallow_fusion", ["llm_scale=0.3", "prior_scale=0.2"], ["scorers.lm.scale=0.3", "scorers.prior.scale=-0.2"]),
        ("shallow_fusion", ["lm=a", "prior=c"], ["scorers.lm.path=a", "scorers.prior.path=c"]),
        ("shallow_fusion", ["ngram=b"], ["scorers.ngram.path=b"]),
        ("joint", ["ctc_scale=0.6", "length_scale=-1"], ["scorers.ctc.scale=0.6", "scorers.length.scale=-1"]),
        ("joint_time_sync", ["llm_scale=0.3"], ["scorers.speech_llm.scale=0.3"]),
        ("delayed_fusion", ["lm.path=a", "lm.text_form=lower"], ["scorers.lm.path=a", "scorers.lm.text_form=lower"]),
        ("lexicon", ["ngram_scale=0.3", "score_beam=3"], ["scorers.ngram.scale=0.3", "pruning.score_beam=3"]),
        ("lexicon", ["lexicon=a"], ["scorers.phones.path=a"]),
        ("speculative", ["draft.search=lexicon", "draft.lexicon=a"],
         ["draft.search=lexicon", "draft.scorers.phones.path=a"]),
        ("rescoring", ["lms.a.path=x", "scales.a=0.1"], ["scorers.a.path=x", "scorers.a.scale=0.1"]),
        ("rescoring", ["priors.p.path=x", "scales.p=-0.1"],
         ["scorers.p.path=x", "scorers.p.prior=true", "scorers.p.scale=-0.1"]),
        ("rescoring", ["first.score_beam=3"], ["first.pruning.score_beam=3"]),
        ("speculative", ["draft.search=lexicon", "draft.prior_scale=1"],
         ["draft.search=lexicon", "draft.scorers.prior.scale=-1"]),
        ("ctc_beam", ["recombine=max", "collapse=0.8"], ["pruning.recombine=max", "pruning.collapse=0.8"]),
    ],
)  # fmt: skip
def test_overrides(search, old, new):
    old, new = ([f"decoding.{each}" for each in overrides] for overrides in (old, new))
    assert load_decoding(search, old) == load_decoding(search, new) != load_decoding(search)


def test_old_overrides_of_a_new_search_and_what_takes_them_back():
    own = load_decoding("shallow_fusion", ["decoding.scorers.lm.scale=0.3", "decoding.scorers.lm.path=a"])
    changed = with_overrides(own, ["decoding.llm_scale=0.4", "decoding.prior_scale=0.0"])
    assert (changed.scale("lm"), changed.scorer("lm").path, str(changed.scale("prior"))) == (0.4, "a", "0.0")
    assert with_overrides(own, ["decoding.lm=null"]).scorer("lm").path is None
    assert load_decoding("joint").scale("speech_llm") == 1.0 - 0.3
    assert JointSearch().scale("length") == ShallowFusionSearch().scale("prior") == 0.0


@pytest.mark.parametrize("key", GONE)
def test_options_that_are_gone(key, tmp_path):
    file = tmp_path / "old.yaml"
    search = {"ctc_labels": "joint", "pre_beam": "joint", "sure": "speculative", "margin": "speculative"}
    name = search.get(key, "ctc_beam" if key.endswith("_by") else "lexicon")
    file.write_text(yaml.safe_dump({"search": name, key: GONE[key]}))
    assert load_decoding(file) == load_decoding(name)
    file.write_text(yaml.safe_dump({"search": name, key: "mean" if GONE[key] == "max" else 0.5}))
    with pytest.raises(ConfigError, match=rf"old\.yaml: {key}: this option is no more; leave it out; it is always"):
        load_decoding(file)


@pytest.mark.parametrize("key", ["llm_scale", "prior_scale", "ngram_scale", "ctc_scale"])
def test_old_scales_are_not_below_zero(key):
    with pytest.raises(ConfigError, match=rf"decoding: {key}: it has to be 0 or above; set scorers\.\w+\.scale"):
        load_decoding("shallow_fusion", [f"decoding.{key}=-1"])
