"""What may be read of a model folder: JSON that asks for no code, no other files and no giant models, and safetensors.

It is checked before transformers builds a module or reads a number. The weights are the business of `weight_checks`.
"""

import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, enable_progress_bars

from kikitori.errors import KikitoriError, ModelError, first_line
from kikitori.io.untrusted import check_files, read_object
from kikitori.model.safety.hub import snapshot

REDIRECTIONS = ("configuration_files", "transformers_weights", "gguf_file")
LARGEST = (  # integers in config.json by key, the first pattern that is found
    (re.compile("layer|depth(?!wise)"), 1_000),
    (re.compile("label|types"), 10_000),
    (re.compile("theta|position|length|window|token|context|seed|_id$"), 2**53),
    (re.compile(""), 2**24),
)
PASSED_ON = (KeyboardInterrupt, SystemExit, GeneratorExit)


def is_hub_id(path_or_id: str | Path) -> bool:
    """Whether something that is no folder may be the id of a model on the hub, `owner/name`."""
    text = str(path_or_id)
    return not Path(text).is_absolute() and not text.startswith((".", "~")) and text.count("/") == 1


def read_json(path_or_id: str | Path, name: str) -> dict[str, Any]:
    """Reads a JSON file of a model folder, or of a model on the hub, once the folder's files have been looked at.

    Raises:
        ModelError: No such folder or file, one that leads elsewhere, or it is no JSON object of a sane size.
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        file = folder / name
    elif not is_hub_id(path_or_id):
        raise ModelError("no such model folder", where=path_or_id, remedy="give a folder, or a hub id like owner/name")
    else:
        file = snapshot(str(path_or_id), [name]) / name
    check_files(file.parent)
    return read_object(file)


def check_config(path_or_id: str | Path, values: object) -> None:
    """Refuses entries of config.json that stand for code of the hub, other files, odd types or absurd sizes.

    Raises:
        ModelError: With the entry.
    """
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        if key == "llm_config" and isinstance(value, dict):
            check_llm_type(path_or_id, value)
        if what := _objection(str(key), value):
            raise ModelError(
                f"config.json {what} ({key}: {str(value)[:80]})", where=path_or_id, remedy="remove the entry"
            )
        check_config(path_or_id, value)


def check_llm_type(path_or_id: str | Path, values: dict[str, Any]) -> None:
    """Refuses a configuration of anything but a language model, before transformers imports all that it has.

    Raises:
        ModelError: With the model type.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    model_type = str(values.get("model_type"))
    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(f"model type '{model_type}' is no language model", where=path_or_id, remedy="name another")


def check_format_version(path_or_id: str | Path, values: Mapping[str, Any], newest: int) -> None:
    """Checks that a folder of ours is in a format that this kikitori reads; one that names no version is the first.

    Raises:
        ModelError: Its `format_version` is none, or newer.
    """
    version = values.get("format_version", 1)
    if type(version) is not int or version < 1:
        raise ModelError(
            f"config.json has no whole number as format_version but {version!r}",
            where=path_or_id,
            remedy="copy the folder again",
        )
    if version > newest:
        raise ModelError(
            f"written by a newer kikitori (format {version}, this one reads up to {newest})",
            where=path_or_id,
            remedy="update kikitori",
        )


@contextmanager
def one_line_errors(path_or_id: str | Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes a `ModelError` of one line."""
    try:
        yield
    except PASSED_ON:
        raise
    except KikitoriError as error:
        remedy = error.remedy or "mend config.json"
        raise ModelError(error.what, where=error.where or path_or_id, remedy=remedy) from None
    except BaseException as error:  # noqa: BLE001  (what a wrong file can raise in transformers has no end)
        raise ModelError(
            f"cannot be loaded ({first_line(error)})", where=path_or_id, remedy="copy the folder again"
        ) from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load reports, warnings or progress bars of transformers inside, but on a terminal those of downloads."""
    from transformers.utils import logging as transformers_logging

    verbosity, progress = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    downloads = sys.stderr.isatty() and not are_progress_bars_disabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()


def _objection(key: str, value: object) -> str | None:
    if key.endswith("_implementation") and "/" in json.dumps(value):
        return "asks for code from the hub"
    if key in REDIRECTIONS and value:
        return "leads to other files"
    if key == "quantization_config" and value is not None:
        return "asks for quantised weights, which are not supported"
    if key in ("dtype", "torch_dtype") and isinstance(value, str):
        return None if isinstance(getattr(torch, value, None), torch.dtype) else "names no type of numbers"
    largest = next(largest for pattern, largest in LARGEST if pattern.search(key))
    return f"has a number above {largest}" if any(abs(number) > largest for number in _integers(value)) else None


def _integers(values: object) -> Iterator[int]:
    """Those in lists of lists; mappings have keys of their own."""
    if isinstance(values, int):
        yield values
    elif isinstance(values, list):
        for value in values:
            yield from _integers(value)
