import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from kikitori.train.card import write_run_card
from kikitori.train.recipe.recipe import load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"
ENVIRONMENT = {
    "versions": dict.fromkeys(("kikitori", "torch", "transformers"), "1"),
    "data": {"sha256": "0", "sentences": 12, "with_recognized_text": 0},
}
METRICS = """{"epoch": 1, "step": 1, "dev_perplexity": 9.0, "time": 1.0}
{"epoch": 2, "step": 2, "dev_perplexity": 8.0, "time": 2.0}
{"epoch": 2, "step": 2, "loss": 1.0, "time": 3.0}
"""


@pytest.mark.parametrize(
    ("recipe", "override", "base", "relation", "pipeline"),
    [
        ("mini_en_lm", "text_injection=null", None, None, "text-generation"),
        ("whisper_ctc", "encoder.init=openai/whisper-base", ["openai/whisper-base"], "finetune", None),
        ("mini_en_masked", "seed=2", None, None, "feature-extraction"),
        ("adaptation/to_speechocean_lora", "seed=2", None, None, None),
    ],
)
def test_every_task_has_a_card(recipe, override, base, relation, pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no run lies that a recipe names
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    (run / "environment.json").write_text(json.dumps(ENVIRONMENT))
    (run / "metrics.jsonl").write_text(METRICS)
    write_run_card(load_recipe(RECIPES / f"{recipe}.yaml", [f"data_root={tmp_path}", override]), run, run / "model")
    card = ModelCard.load(run / "model" / "README.md")
    assert "trained on 12 sentences (language: en) with kikitori 1, torch 1, transformers 1." in card.text
    assert "| perplexity | 8.0000 |" in card.text
    assert card.data.eval_results[0].metric_value == 8.0
    assert card.data.pipeline_tag == (pipeline or "automatic-speech-recognition")
    assert (card.data.base_model, getattr(card.data, "base_model_relation", None)) == (base, relation)
