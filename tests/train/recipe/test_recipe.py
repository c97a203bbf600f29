import re
from pathlib import Path

import pytest
import yaml

from kikitori.errors import ConfigError
from kikitori.train.recipe.recipe import load_recipe
from kikitori.train.recipe.settings import Cosine, ManifestRef, Piecewise

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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_committed_recipes_load(path, tmp_path):
    recipe = load_recipe(path, [f"data_root={tmp_path}"])
    assert recipe.data_root == str(tmp_path)
    assert recipe.run.epochs >= 1


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("values", [ACOUSTIC, LANGUAGE, SPEECH_LLM, MASKED], ids=lambda values: values["task"])
def test_least_recipes_load(load, values):
    recipe = load(values)
    assert recipe.task == values["task"]
    assert recipe.optim.schedule == Cosine(kind="cosine")
    assert recipe.augment.spec_augment is None


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
    + [(MASKED, section) for section in ("data", "encoder", "targets", "masks")],
)
def test_needed_sections(load, values, section):
    with pytest.raises(ConfigError, match=f"task '{values['task']}' needs the section '{section}'"):
        load(without(values, section))


@pytest.mark.parametrize(
    ("values", "section", "content"),
    [
        (ACOUSTIC, "bridge", {"kind": "conv"}),
        (ACOUSTIC, "llm", {"init": "l"}),
        (ACOUSTIC, "denoising", {}),
        (LANGUAGE, "data", SPEECH),
        (LANGUAGE, "encoder", ENCODER),
        (LANGUAGE, "bridge", {"kind": "conv"}),
        (SPEECH_LLM, "denoising", {"share": 0.1}),
        (ACOUSTIC, "targets", {}),
        (LANGUAGE, "masks", {}),
        (SPEECH_LLM, "masks", {}),
        (MASKED, "units", {"kind": "characters"}),
        (MASKED, "text", {"files": ["t.txt"]}),
        (MASKED, "llm", {"init": "l"}),
    ],
)
def test_unused_sections(load, values, section, content):
    with pytest.raises(ConfigError, match=f"task '{values['task']}' does not use the section '{section}'"):
        load({**values, section: content})


@pytest.mark.parametrize(
    ("values", "override", "message"),
    [
        (ACOUSTIC, "units.path=x", "units: units.path goes with units.kind 'run', and only with it"),
        (ACOUSTIC, "units.kind=run", "units: units.path goes with units.kind 'run', and only with it"),
        (ACOUSTIC, "units.kind=llm", "units.kind 'llm' needs llm.init"),
        (LANGUAGE, "units.kind=llm", "units.kind 'llm' needs llm.init"),
        (ACOUSTIC, "units.kind=bpe", "units.kind: Input should be 'characters', 'sentencepiece', 'llm' or 'run'"),
        (ACOUSTIC, "units.text_form=upper", "units.text_form: Input should be"),
        (ACOUSTIC, "encoder.config={model_type: a}", "encoder: give either init or config"),
        (ACOUSTIC, "encoder.init=null", "encoder: give either init or config"),
        (SPEECH_LLM, "llm.init=null", "llm: give either init or config"),
        (LANGUAGE, "llm.init=x", "llm: give either init or config"),
        (SPEECH_LLM, "llm.lora.rank=4", "llm: lora settings need policy 'lora'"),
        (ACOUSTIC, "encoder.lora.rank=4", "encoder: lora settings need policy 'lora'"),
        (
            ACOUSTIC,
            "encoder={init: null, config: {model_type: hubert}, random: true}",
            "encoder: random goes with init",
        ),
        (LANGUAGE, "llm.random=true", "llm: random goes with init"),
        (ACOUSTIC, "encoder={init: e, policy: frozen, unfreeze_at: 5}", "encoder: unfreeze_at goes with a policy that"),
        (
            SPEECH_LLM,
            "llm={init: l, policy: frozen, unfreeze_at: 5}",
            "llm: unfreeze_at goes with a policy that learns",
        ),
        (SPEECH_LLM, "bridge={kind: conv, policy: frozen, unfreeze_at: 5}", "bridge: unfreeze_at goes with a policy"),
        (SPEECH_LLM, "llm.unfreeze_at=-1", "llm.unfreeze_at: Input should be greater than or equal to 0"),
        (SPEECH_LLM, "llm={init: l, policy: lora, freeze_embeddings: true}", "llm: freeze_embeddings goes with policy"),
        (SPEECH_LLM, "units.bpe_dropout=1.1", "units.bpe_dropout: Input should be less than or equal to 1"),
        (ACOUSTIC, "data.min_seconds=31", "data: min_seconds is more than max_seconds"),
        (ACOUSTIC, "data.max_seconds=0", "data.max_seconds: Input should be greater than 0"),
        (ACOUSTIC, "data.train=null", "data.train: Input should be a valid array"),
        (ACOUSTIC, "data.on_error=ignore", "data.on_error: Input should be 'stop' or 'skip'"),
        (ACOUSTIC, "augment.noise_snr_db=[40, 10]", "augment: noise_snr_db goes from the lowest to the highest"),
        (ACOUSTIC, "augment.speeds=[0.9, 0]", "augment.speeds.1: Input should be greater than 0"),
        (ACOUSTIC, "augment.gain_db=-3", "augment.gain_db: Input should be greater than or equal to 0"),
        (ACOUSTIC, "augment.spec_augment.ramp=2", "augment.spec_augment.ramp: Input should be less than or equal to 1"),
        (ACOUSTIC, "ctc.weights={0: 1.0}", "ctc.weights.0: Input should be greater than or equal to 1"),
        (ACOUSTIC, "ctc.weights={6: -1.0}", "ctc.weights.6: Input should be greater than or equal to 0"),
        (ACOUSTIC, "optim.lr=0", "optim.lr: Input should be greater than 0"),
        (ACOUSTIC, "optim.betas=[0.9, 1.0]", "optim.betas.1: Input should be less than 1"),
        (ACOUSTIC, "optim.weight_decay=-0.1", "optim.weight_decay: Input should be greater than or equal to 0"),
        (
            ACOUSTIC,
            "optim.schedule={kind: cosine, warmpu: 0.1}",
            "optim.schedule.warmpu: unexpected key; did you mean 'warmup'?",
        ),
        (ACOUSTIC, "optim.schedule={kind: cosine, warmup: 1.5}", "optim.schedule.warmup: Input should be less than"),
        (
            ACOUSTIC,
            "optim.schedule={kind: piecewise, points: []}",
            "optim.schedule: points must rise from fraction 0.0 to 1.0",
        ),
        (ACOUSTIC, "optim.schedule={kind: piecewise, points: [[0.0, 1.0]]}", "points must rise"),
        (ACOUSTIC, "optim.schedule={kind: piecewise, points: [[0.1, 1], [1, 1]]}", "points must rise"),
        (ACOUSTIC, "optim.schedule={kind: piecewise, points: [[0, 1], [0.9, 1]]}", "points must rise"),
        (
            ACOUSTIC,
            "optim.schedule={kind: piecewise, points: [[0, 1], [0.6, 1], [0.5, 1], [1, 1]]}",
            "points must rise",
        ),
        (ACOUSTIC, "seed=-1", "seed: Input should be greater than or equal to 0"),
        (ACOUSTIC, "run.epochs=0", "run.epochs: Input should be greater than or equal to 1"),
        (ACOUSTIC, "run.precision=float16", "run.precision: Input should be 'float32' or 'bfloat16'"),
        (ACOUSTIC, "task=translate", "task: Input should be"),
        (ACOUSTIC, "prompt.preset=none", "prompt.preset: Input should be"),
        (LANGUAGE, "denoising.share=1.5", "denoising.share: Input should be less than or equal to 1"),
        (LANGUAGE, "denoising.lexicon=l.tsv", "denoising.lexicon needs denoising.ctc, a run with phone heads"),
        (
            SPEECH_LLM,
            "interface=suffix",
            "interface: Input should be 'prefix', 'merged_attention' or 'cross_attention'",
        ),
        (MASKED, "ctc.weights={6: 1.0}", "task 'masked_prediction' has no CTC heads"),
        (MASKED, "targets.layer=2", "run and layer go together"),
        (MASKED, "targets.run=r", "run and layer go together"),
        (MASKED, "targets.clusters=70000", "targets.clusters: Input should be less"),
        (MASKED, "masks.share=1.0", "masks.share: Input should be less"),
        (MASKED, "masks.seconds=0", "masks.seconds: Input should be greater"),
        (LANGUAGE, "interface=cross_attention", "task 'language_model' does not use the interface 'cross_attention'"),
        (ACOUSTIC, "interface=merged_attention", "task 'acoustic_model' does not use the interface 'merged_attention'"),
        (LANGUAGE, "llm.auxiliary_layer=1", "task 'language_model' does not use llm.auxiliary_layer"),
        (SPEECH_LLM, "llm.auxiliary_weight=-1", "llm.auxiliary_weight: Input should be greater than or equal to 0"),
        (SPEECH_LLM, "bridge.stride=0", "bridge.stride: Input should be greater than or equal to 1"),
        (SPEECH_LLM, "bridge.blanks=keep", "bridge: blanks, repeats and ctc_layer need kind 'ctc_compress'"),
        (SPEECH_LLM, "bridge.repeats=average", "bridge: blanks, repeats and ctc_layer need kind 'ctc_compress'"),
        (SPEECH_LLM, "bridge.ctc_layer=6", "bridge: blanks, repeats and ctc_layer need kind 'ctc_compress'"),
        (SPEECH_LLM, "bridge.kind=ctc_compress", "bridge: stride does not go with kind 'ctc_compress'"),
        (COMPRESS, "bridge.blanks=purge", "bridge.blanks: Input should be 'drop' or 'keep'"),
        (COMPRESS, "bridge.repeats=merge", "bridge.repeats: Input should be 'keep', 'average' or 'weighted'"),
        (COMPRESS, "bridge.blanks=keep", "bridge: blanks 'keep' with repeats 'keep' compresses nothing"),
        (COMPRESS, "ctc={weights: {6: 0.0}}", "'ctc_compress' needs a weight above 0 for layer 6 in ctc.weights"),
        (COMPRESS, "bridge.ctc_layer=5", "'ctc_compress' needs a weight above 0 for layer 5 in ctc.weights"),
    ],
)
def test_cross_checks_and_bounds(load, values, override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load(values, override)


def test_ctc_compression_in_a_recipe(load):
    bridge = load(COMPRESS).bridge
    assert (bridge.blanks, bridge.repeats, bridge.ctc_layer) == ("drop", "keep", None)
    bridge = load(COMPRESS, "bridge.blanks=keep", "bridge.repeats=weighted", "bridge.ctc_layer=6").bridge
    assert (bridge.blanks, bridge.repeats, bridge.ctc_layer) == ("keep", "weighted", 6)
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
