from huggingface_hub import ModelCard

from kikitori.model.published.card import write_card


def test_what_the_hub_reads(tmp_path):
    bases = ["openai/whisper-base", str(tmp_path), "runs/ctc/model"]
    scores = {"wer_greedy": 0.123456, "cer_greedy": 0.05, "loss": 3.0}
    write_card(tmp_path, "mine", "Text: *more*.", language="ja", base_models=bases, relation="adapter", scores=scores)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.text == "\n# mine\n\nText: *more*.\n"
    assert card.data.to_dict() == {
        "language": "ja",
        "library_name": "kikitori",
        "pipeline_tag": "automatic-speech-recognition",
        "base_model": ["openai/whisper-base"],
        "base_model_relation": "adapter",
        "model-index": [
            {
                "name": "mine",
                "results": [
                    {
                        "task": {"type": "automatic-speech-recognition"},
                        "dataset": {"name": "dev", "type": "dev"},
                        "metrics": [
                            {"type": "wer", "value": 0.1235, "name": "wer_greedy"},
                            {"type": "cer", "value": 0.05, "name": "cer_greedy"},
                        ],
                    }
                ],
            }
        ],
    }


def test_nothing_is_made_up(tmp_path):
    write_card(tmp_path, "mine", "Text.", base_models=["runs"], relation="finetune", library="transformers")
    assert ModelCard.load(tmp_path / "README.md").data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["kikitori"],
    }
