"""The model card of a folder: `README.md`, with the metadata that the Hugging Face hub reads at its head.

The licence is nobody's but the author's to give, so the metadata name none. They name a base model if it is on the hub.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from kikitori.io.files import write_text

CARD = "README.md"
Relation = Literal["finetune", "adapter", "merge", "quantized"]
"""What a model has to do with its base, in the hub's words."""
METRICS = ("wer", "cer", "perplexity")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def write_card(
    folder: Path,
    title: str,
    text: str,
    *,
    language: str | None = None,
    base_models: Sequence[str] = (),
    relation: Relation | None = None,
    scores: Mapping[str, float] | None = None,
    library: Literal["kikitori", "transformers"] = "kikitori",
    pipeline: str = "automatic-speech-recognition",
) -> None:
    """Writes the card of a model folder.

    Args:
        folder: The folder.
        title: Name of the model.
        text: What there is to say, in Markdown.
        language: Code of its language.
        base_models: What it was made from; those that are no hub ids but folders are left out.
        relation: What it has to do with them.
        scores: What was measured on dev, by `wer_greedy` and the like; names of other metrics are left out.
        library: What loads the folder.
        pipeline: The hub's word for what the model does.

    Raises:
        OSError: It cannot be written.
    """
    from huggingface_hub import EvalResult, ModelCardData

    bases = [base for base in base_models if HUB_ID.fullmatch(base) and not Path(base).exists()]
    results = [
        EvalResult(
            task_type=pipeline,
            dataset_type="dev",
            dataset_name="dev",
            metric_type=metric,
            metric_name=name,
            metric_value=round(value, 4),
        )
        for name, value in (scores or {}).items()
        for metric in METRICS
        if name.split("_")[0] == metric
    ]
    data = ModelCardData(
        language=language,
        library_name=library,
        pipeline_tag=pipeline,
        tags=["kikitori"] if library != "kikitori" else None,
        base_model=bases or None,
        base_model_relation=relation if bases else None,
        eval_results=results or None,
        model_name=title if results else None,
    )
    write_text(folder / CARD, f"---\n{data.to_yaml()}\n---\n\n# {title}\n\n{text.strip()}\n")
