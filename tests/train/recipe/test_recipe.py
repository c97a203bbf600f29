import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml

from kikitori.errors import ConfigError
from kikitori.train.recipe.data import ManifestRef
from kikitori.train.recipe.language_model import TextInjection
from kikitori.train.recipe.optim import Cosine, Piecewise
from kikitori.train.recipe.recipe import load_recipe, resolve

RECIPES = sorted((Path(__file__).parents[3] / "recipes").rglob("*.yaml"))

ENCODER = {"init": "e"}
SPEECH = {"train": [{"path": "m.jsonl"}]}
COMMON = {"units": {"kind": "characters"}, "optim": {"lr": 0.001}, "run": {"epochs": 1}}
ACOUSTIC = {**COMMON, "task": "acoustic_model", "data": SPEECH, "encoder": ENCODER, "ctc": {"weights": {6: 1.0}}}
LANGUAGE = {**COMMON, "task": "language_model", "text": {"files": ["t.txt"]}, "llm": {"config": {"model_type": "gpt2"}}}
SPEECH_LLM = {
    **COMMON,
    "task": "speech_llm",
    "data": SPEECH,
    "encoder": ENCODER,
    "bridge": {"kind": "stack", "stride": 2},
    "llm": {"init": "l"},
}
MASKED = {
    **{key: value for key, value in COMMON.items() if key != "units"},
    "task": "masked_prediction",
    "data": SPEECH,
    "encoder": ENCODER,
    "targets": {},
    "masks": {},
}
ADAPTATION = {
    **COMMON,
    "task": "adaptation",
    "units": {"kind": "run", "path": "base"},
    "adapt": {"model": "base"},
    "data": SPEECH,
}
TEXT_ADAPTATION = {**{key: value for key, value in ADAPTATION.items() if key != "data"}, "text": {"files": ["t.txt"]}}
EACH = [ACOUSTIC, LANGUAGE, SPEECH_LLM, MASKED, ADAPTATION, TEXT_ADAPTATION]
IDS = ["acoustic_model", "language_model", "speech_llm", "masked_prediction", "adaptation", "adaptation_to_text"]
FROM_SCRATCH = {**SPEECH_LLM, "llm": {"config": {"model_type": "gpt2"}}}
COMPRESS = {**SPEECH_LLM, "bridge": {"kind": "ctc_compress"}, "ctc": {"weights": {6: 1.0}}}


@pytest.fixture
def load(tmp_path):
    def load(values, *overrides):
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return load_recipe(path, [f"data_root={tmp_path}", *overrides])

    return load


def without(values, key):
    return {k: v for k, v in values.items() if k != key}


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("values", EACH, ids=IDS)
def test_least_recipes_load(load, values):
    recipe = load(values)
    assert recipe.task == values["task"]
    assert recipe.optim.schedule == Cosine(kind="cosine")


def test_values_arrive_typed(load):
    recipe = load(ACOUSTIC, "optim.schedule={kind: piecewise}", "data.dev=[{path: d, split: dev, repeat: 2}]", "seed=0")
    assert recipe.ctc.weights == {6: 1.0}
    assert recipe.data.dev == [ManifestRef("d", "dev", 2)]
    assert recipe.optim.schedule == Piecewise(kind="piecewise")
    assert recipe.optim.schedule.points[1] == (0.45, 1.0)
    with pytest.raises(AttributeError):
        recipe.seed = 2


@pytest.mark.parametrize(
    ("values", "section"),
    [(values, "units") for values in (ACOUSTIC, LANGUAGE, SPEECH_LLM)]
    + [(ACOUSTIC, "data"), (ACOUSTIC, "encoder"), (LANGUAGE, "text"), (LANGUAGE, "llm")]
    + [(SPEECH_LLM, section) for section in ("data", "encoder", "bridge", "llm")]
    + [(MASKED, section) for section in ("data", "encoder", "targets", "masks")]
    + [(ADAPTATION, section) for section in ("units", "adapt")],
)
def test_needed_sections(load, values, section):
    for lacking in (without(values, section), {**values, section: None}):
        with pytest.raises(ConfigError, match=rf"recipe\.yaml: {section}: required key is missing"):
            load(lacking)


@pytest.mark.parametrize(
    ("values", "section", "content"),
    [
        (ACOUSTIC, "bridge", {"kind": "conv"}),
        (ACOUSTIC, "llm", {"init": "l"}),
        (ACOUSTIC, "text_injection", {}),
        (ACOUSTIC, "targets", {}),
        (ACOUSTIC, "prompt", {"preset": "rwth"}),
        (ACOUSTIC, "interface", "merged_attention"),
        (LANGUAGE, "data", SPEECH),
        (LANGUAGE, "encoder", ENCODER),
        (LANGUAGE, "bridge", {"kind": "conv"}),
        (LANGUAGE, "masks", {}),
        (LANGUAGE, "ctc", {"weights": {6: 1.0}}),
        (LANGUAGE, "interface", "cross_attention"),
        (SPEECH_LLM, "text_injection", {"share": 0.1}),
        (SPEECH_LLM, "masks", {}),
        (MASKED, "units", {"kind": "characters"}),
        (MASKED, "text", {"files": ["t.txt"]}),
        (MASKED, "llm", {"init": "l"}),
        (MASKED, "ctc", {"weights": {6: 1.0}}),
        (ADAPTATION, "encoder", ENCODER),
        (ADAPTATION, "text_injection", {}),
        (TEXT_ADAPTATION, "ctc", {"weights": {6: 1.0}}),
    ],
)
def test_sections_of_other_tasks(load, values, section, content):
    with pytest.raises(ConfigError, match=f"{section}: task '{values['task']}' does not use the section '{section}'"):
        load({**values, section: content})


@pytest.mark.parametrize("values", EACH, ids=IDS)
def test_sections_of_other_tasks_may_be_empty(load, values):
    """As saved recipes of earlier runs have them."""
    nothing = {"bridge": None, "targets": None, "denoising": None, "hold": None, "adapt": None, "interface": "prefix"}
    nothing |= {"augment": {"speeds": [], "gain_db": 0.0, "spec_augment": None}, "prompt": {"preset": "plain"}}
    nothing |= {"ctc": {"weights": {}, "character_upsample": 2, "phones": None, "policy": "full"}}
    assert load({**nothing, **values}) == load(values)


@pytest.mark.parametrize("values", EACH, ids=IDS)
def test_a_saved_recipe_is_read_again(load, values):
    recipe = load(values)
    assert load(json.loads(json.dumps(dataclasses.asdict(recipe)))) == recipe


@pytest.mark.parametrize(
    ("values", "path", "constant", "other"),
    [
        (ACOUSTIC, "optim.betas", "[0.9, 0.98]", "[0.8, 0.9]"),
        (ACOUSTIC, "optim.eps", "1.0e-8", "1.0e-6"),
        (ACOUSTIC, "data.start_seconds", "30.0", "5.0"),
        (ACOUSTIC, "data.start_epochs", "0", "2"),
        (ACOUSTIC, "run.max_skipped_in_row", "10", "3"),
        (ACOUSTIC, "run.max_skipped_share", "0.1", "0.5"),
        (ACOUSTIC, "ctc.character_upsample", "2", "1"),
        (ACOUSTIC, "ctc.phones", "{lexicon: l, weights: {6: 1.0}, alignment_weight: 1.0}", None),
        (COMPRESS, "bridge.ctc_layer", "null", "5"),
        (SPEECH_LLM, "llm.auxiliary_weight", "1.0", "0.5"),
        (MASKED, "masks.unmasked_weight", "0.0", "0.1"),
        (LANGUAGE, "denoising.error_rate", "0.4", "0.1"),
        (LANGUAGE, "text_injection.frames_per_label", "2.5", "3.0"),
    ],
)
def test_options_that_have_become_constants(load, values, path, constant, other):
    load(values, f"{path}={constant}")
    if other is not None:
        name = path.replace("denoising", "text_injection")
        with pytest.raises(ConfigError, match=rf"{re.escape(name)}: it is no option any more; its value is .*; leave"):
            load(values, f"{path}={other}")


def test_old_names_are_read(load):
    manifest = {"path": "m.jsonl", "apart_from": ["dev"]}
    old = {**LANGUAGE, "denoising": {"ctc": "c", "speech": [manifest], "share": 0.25}}
    recipe = load(old)
    assert recipe.text_injection == TextInjection(
        share=0.25, ctc="c", speech=[ManifestRef("m.jsonl", exclude_overlap_with=["dev"])]
    )
    new = {**LANGUAGE, "text_injection": {"share": 0.25}}
    for override in ("denoising.share=0.75", "text_injection.share=0.75"):
        assert load(old, override).text_injection.share == load(new, override).text_injection.share == 0.75
    assert load({**ADAPTATION, "hold": {"weight": 2.0}}).kl_to_base.weight == 2.0


def test_a_run_stands_for_the_model_that_it_exported(load, tmp_path):
    for run in ("e", "l", "u"):
        (tmp_path / run / "model").mkdir(parents=True)
    starts = {"encoder": {"init": str(tmp_path / "e")}, "llm": {"init": str(tmp_path / "l")}}
    units = {"kind": "run", "path": str(tmp_path / "u")}
    recipe = resolve(load({**SPEECH_LLM, **starts, "units": units}))
    found = (recipe.encoder.init, recipe.llm.init, recipe.units.path)
    assert found == tuple(str(tmp_path / run / "model") for run in ("e", "l", "u"))
    base = str(tmp_path / "e")
    adaptation = resolve(load({**ADAPTATION, "adapt": {"model": base}, "units": {"kind": "run", "path": base}}))
    assert adaptation.adapt.model == adaptation.units.path == str(tmp_path / "e" / "model")
    masked = resolve(load(MASKED, f"targets.run={base}", "targets.layer=1"))
    assert masked.targets.run == str(tmp_path / "e" / "model")
    assert resolve(load(SPEECH_LLM)) == load(SPEECH_LLM)  # a hub id or a folder is itself


@pytest.mark.parametrize(
    ("values", "override", "message"),
    [
        # Rules between keys.
        (ACOUSTIC, "units.path=x", "units: units.path goes with units.kind 'run', and only with it"),
        (ACOUSTIC, "units.kind=run", "units: units.path goes with units.kind 'run', and only with it"),
        (ACOUSTIC, "units.kind=llm", "units.kind 'llm' needs llm.init"),
        (LANGUAGE, "units.kind=llm", "units.kind 'llm' needs llm.init"),
        (FROM_SCRATCH, "units.kind=llm", "units.kind 'llm' needs llm.init"),
        (ACOUSTIC, "encoder.config={model_type: a}", "encoder: give either init or config"),
        (ACOUSTIC, "encoder.init=null", "encoder: give either init or config"),
        (SPEECH_LLM, "llm.init=null", "llm: give either init or config"),
        (LANGUAGE, "llm.init=x", "llm: give either init or config"),
        (ACOUSTIC, "encoder={init: null, config: {model_type: a}, changes: {b: 1}}", "encoder: changes go with init"),
        (SPEECH_LLM, "llm.lora.rank=4", "llm: lora settings need policy 'lora'"),
        (ACOUSTIC, "encoder.lora.rank=4", "encoder: lora settings need policy 'lora'"),
        (ACOUSTIC, "encoder={init: null, config: {model_type: a}, random: true}", "encoder: random goes with init"),
        (LANGUAGE, "llm.random=true", "llm: random goes with init"),
        (ACOUSTIC, "encoder={init: e, policy: frozen, unfreeze_at: 5}", "encoder: unfreeze_at goes with a policy that"),
        (SPEECH_LLM, "llm={init: l, policy: frozen, unfreeze_at: 5}", "llm: unfreeze_at goes with a policy that"),
        (SPEECH_LLM, "bridge={kind: conv, policy: frozen, unfreeze_at: 5}", "bridge: unfreeze_at goes with a policy"),
        (SPEECH_LLM, "llm={init: l, policy: lora, freeze_embeddings: true}", "llm: freeze_embeddings goes with policy"),
        (ACOUSTIC, "data.min_seconds=31", "data: min_seconds is more than max_seconds"),
        (ACOUSTIC, "augment.noise_snr_db=[40, 10]", "augment: noise_snr_db goes from the lowest to the highest"),
        (ACOUSTIC, "optim.schedule={kind: piecewise, points: []}", "points must rise from fraction 0.0 to 1.0"),
        (ACOUSTIC, "optim.schedule={kind: piecewise, points: [[0.1, 1], [1, 1]]}", "points must rise"),
        (ACOUSTIC, "optim.schedule={kind: piecewise, points: [[0, 1], [0.9, 1]]}", "points must rise"),
        (
            ACOUSTIC,
            "optim.schedule={kind: piecewise, points: [[0, 1], [0.6, 1], [0.5, 1], [1, 1]]}",
            "points must rise",
        ),
        (ACOUSTIC, "run={epochs: 1, average_last: 2, average_best: 2}", "average_last and average_best exclude"),
        (ACOUSTIC, "ctc.policy=frozen", "ctc.policy 'frozen' needs encoder.policy 'frozen'"),
        (SPEECH_LLM, "ctc.policy=frozen", "ctc.policy 'frozen' needs encoder.policy 'frozen'"),
        (SPEECH_LLM, "bridge.show_phones=true", "bridge.show_phones needs ctc.phones"),
        (SPEECH_LLM, "bridge.blanks=keep", "bridge: blanks and repeats need kind 'ctc_compress'"),
        (SPEECH_LLM, "bridge.repeats=average", "bridge: blanks and repeats need kind 'ctc_compress'"),
        (SPEECH_LLM, "bridge.kind=ctc_compress", "bridge: stride does not go with kind 'ctc_compress'"),
        (COMPRESS, "bridge.blanks=keep", "bridge: blanks 'keep' with repeats 'keep' compresses nothing"),
        (COMPRESS, "ctc={weights: {6: 0.0}}", "'ctc_compress' needs a weight above 0 for layer 6 in ctc.weights"),
        (LANGUAGE, "text_injection.ctc=c", "text_injection: ctc and speech go together"),
        (LANGUAGE, "text_injection.speech=[{path: m}]", "text_injection: ctc and speech go together"),
        (LANGUAGE, "text_injection.lexicon=l.tsv", "text_injection.lexicon needs text_injection.ctc, a run with phone"),
        (
            LANGUAGE,
            "prompt.draft=d.yaml",
            "prompt.draft is for a speech_llm, or text injection with text_injection.lex",
        ),
        (LANGUAGE, "llm.auxiliary_layer=1", "task 'language_model' does not use llm.auxiliary_layer"),
        (MASKED, "targets.layer=2", "run and layer go together"),
        (MASKED, "targets.run=r", "run and layer go together"),
        (ADAPTATION, "adapt.components=[]", "components are llm or whole_llm, bridge and encoder, each at most once"),
        (ADAPTATION, "adapt.components=[llm, whole_llm]", "components llm (LoRA) and whole_llm exclude each other"),
        (ADAPTATION, "adapt.model=other", "the units of an adaptation are its base's"),
        (ADAPTATION, "text={files: [t.txt]}", "task 'adaptation' needs either 'data' or 'text'"),
        (ADAPTATION, "data=null", "task 'adaptation' needs either 'data' or 'text'"),
        (ADAPTATION, "ctc.weights={6: 1.0}", "ctc.weights need 'encoder' among adapt.components"),
        (ADAPTATION, "ctc.policy=frozen", "ctc.policy 'frozen' is not for an adaptation"),
        (TEXT_ADAPTATION, "adapt.components=[bridge]", "text adapts the LLM alone"),
        # Pydantic's own, one of each kind.
        (ACOUSTIC, "task=translate", "task: there is no task 'translate'"),
        (ACOUSTIC, "task=acoustic", "task: there is no task 'acoustic'; did you mean 'acoustic_model'?"),
        (ACOUSTIC, "units.kind=bpe", "units.kind: Input should be 'characters', 'sentencepiece', 'llm' or 'run'"),
        (ACOUSTIC, "data.train=null", "data.train: Input should be a valid array"),
        (ACOUSTIC, "augment.speeds=[0.9, 0]", "augment.speeds.1: Input should be greater than 0"),
        (ACOUSTIC, "ctc.weights={0: 1.0}", "ctc.weights.0: Input should be greater than or equal to 1"),
        (ACOUSTIC, "seed=-1", "seed: Input should be greater than or equal to 0"),
        (LANGUAGE, "text_injection.share=1.5", "text_injection.share: Input should be less than or equal to 1"),
        (MASKED, "masks.share=1.0", "masks.share: Input should be less"),
        (
            ACOUSTIC,
            "optim.schedule={kind: cosine, warmpu: 0.1}",
            "optim.schedule.warmpu: unexpected key; did you mean 'warmup'?",
        ),
        (ACOUSTIC, "encodre={init: e}", "encodre: unexpected key; did you mean 'encoder'?"),
    ],
)
def test_rules_and_bounds(load, values, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(values, override)


def test_ctc_compression_in_a_recipe(load):
    bridge = load(COMPRESS).bridge
    assert (bridge.blanks, bridge.repeats) == ("drop", "keep")
    bridge = load(COMPRESS, "bridge.blanks=keep", "bridge.repeats=weighted").bridge
    assert (bridge.blanks, bridge.repeats) == ("keep", "weighted")
    with pytest.raises(ConfigError, match=r"bridge\.kind 'ctc_compress' needs a weight above 0 in ctc\.weights"):
        load(without(COMPRESS, "ctc"))


def test_acoustic_model_needs_a_ctc_layer(load):
    with pytest.raises(ConfigError, match=r"task 'acoustic_model' needs ctc\.weights"):
        load(without(ACOUSTIC, "ctc"))


def test_units_of_a_run_and_lora(load):
    assert load(ACOUSTIC, "units={kind: run, path: runs/a}").units.path == "runs/a"
    assert load(SPEECH_LLM, "llm={policy: lora, init: l, lora: {rank: 4}}").llm.lora.rank == 4
    assert load(SPEECH_LLM, "llm.policy=lora").llm.lora is None
    assert load(SPEECH_LLM, "encoder.policy=lora", "encoder.lora.rank_stabilised=true").encoder.lora.rank_stabilised
    assert load(SPEECH_LLM, "units.kind=llm").units.kind == "llm"


def test_data_root_must_exist(load, tmp_path):
    with pytest.raises(
        ConfigError, match=r"recipe\.yaml: data_root: no such folder '/nowhere'; set it with data_root=FOLDER"
    ):
        load(ACOUSTIC, "data_root=/nowhere")
    with pytest.raises(ConfigError, match="no such folder"):
        load(ACOUSTIC, f"data_root={tmp_path / 'recipe.yaml'}")
