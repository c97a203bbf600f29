"""Recognisers on the Hugging Face hub: fetched as whole folders, and read as any other folder."""

from pathlib import Path

from kikitori.io.model_folder import CONFIG, SEARCH_FILES, SPEECH_LLM, ModelType
from kikitori.io.untrusted import INDEX, SETTINGS, VOCABULARIES
from kikitori.model.safety.config import is_hub_id, read_json
from kikitori.model.safety.hub import snapshot
from kikitori.model.weights import SAFETENSORS, find_weights

NETWORK = (CONFIG, SAFETENSORS, "model-*-of-*.safetensors", INDEX, *SETTINGS, *VOCABULARIES, "*.model", "*.jinja")
BESIDE = (*SEARCH_FILES, f"{SPEECH_LLM}/*")
"""What is fetched of a model of others: the network in the one form that is read, what its searches may find, and a
second decoder."""
OURS = (CONFIG, "*.json", "*.yaml", "*.safetensors", "*.txt", "*.tsv", "*.xz", "*.ngram", "*.model", "*.jinja", "*.md")
"""What is fetched of one of ours: all but what nobody reads."""


def fetched(path_or_id: str | Path) -> str | Path:
    """The folder of a recogniser, for a hub id that of its files in the hub's cache.

    Nue-ASR, whose safetensors lie in a revision of their own, and a model without safetensors stay as they are.

    Raises:
        ModelError: There is no such model, or it cannot be fetched.
    """
    if Path(path_or_id).is_dir() or not is_hub_id(path_or_id):
        return path_or_id
    kind = str(read_json(path_or_id, CONFIG).get("model_type"))
    if kind == ModelType.NUE_ASR:
        return path_or_id
    folder = snapshot(str(path_or_id), OURS if kind in [*ModelType] else (*NETWORK, *BESIDE))
    return folder if find_weights(folder, SAFETENSORS) else path_or_id
