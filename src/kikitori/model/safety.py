"""What may be read of a model folder: safetensors and JSON. Pickles, code and giant files are refused."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from kikitori.errors import KikitoriError, ModelError

MAX_JSON_BYTES = 64 * 2**20  # tokenizer.json of a vocabulary of 256k has about 20 MB
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".nemo")


def read_json(path_or_id: str | Path, name: str) -> dict[str, Any]:
    """Reads a JSON file of a model folder, or of a model on the hub.

    Raises:
        ModelError: No such folder or file, or it is no JSON object of a sane size.
    """
    folder = Path(path_or_id)
    if folder.is_dir():
        file: Path = folder / name
    elif folder.is_absolute() or str(path_or_id).startswith((".", "~")) or str(path_or_id).count("/") != 1:
        raise ModelError("no such model folder", where=path_or_id, remedy="give a folder, or a hub id like owner/name")
    else:
        try:
            file = Path(str(cached_file(str(path_or_id), name)))
        except (OSError, ValueError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ModelError(
                f"{name} cannot be fetched ({reason})", where=path_or_id, remedy="check the path or the hub id"
            ) from None
    if not file.is_file():
        raise ModelError(f"{name} is missing", where=path_or_id, remedy="copy the folder again")
    if file.stat().st_size > MAX_JSON_BYTES:
        raise ModelError(
            f"{name} is larger than {MAX_JSON_BYTES >> 20} MB", where=path_or_id, remedy="copy the folder again"
        )
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{name} is not JSON ({error})", where=path_or_id, remedy="copy the folder again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{name} is not a JSON object", where=path_or_id, remedy="copy the folder again")
    return values


def check_weights(path_or_id: str | Path) -> None:
    """Refuses a local folder without safetensors, one with pickles alone, and one with a bare adapter.

    Raises:
        ModelError: With the file at fault.
    """
    folder = Path(path_or_id)
    if not folder.is_dir():
        return
    if (folder / "adapter_config.json").is_file():
        # transformers would load the base model that it names, from wherever that is.
        raise ModelError("the folder holds a LoRA adapter", where=path_or_id, remedy="give the folder of a whole model")
    if any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise ModelError(
            f"{pickled[0]} is a pickle, which can run code when it is read",
            where=path_or_id,
            remedy="save the model again with save_pretrained, which writes safetensors",
        )
    raise ModelError("model.safetensors is missing", where=path_or_id, remedy="copy the folder again")


def check_code(path_or_id: str | Path, values: object) -> None:
    """Refuses attention and expert kernels of the hub, which transformers would fetch and run.

    Raises:
        ModelError: With the entry of config.json.
    """
    if not isinstance(values, dict):
        return
    for key, value in values.items():
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ModelError(
                f"config.json asks for code from the hub ({key}: {value})",
                where=path_or_id,
                remedy="remove the entry",
            )
        check_code(path_or_id, value)


@contextmanager
def one_line_errors(path_or_id: str | Path) -> Iterator[None]:
    """Whatever goes wrong inside becomes a `ModelError` of one line."""
    try:
        yield
    except KikitoriError as error:
        remedy = error.remedy or "mend config.json"
        raise ModelError(error.what, where=error.where or path_or_id, remedy=remedy) from None
    except Exception as error:  # noqa: BLE001  (what a wrong config.json can raise in transformers has no end)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"cannot be loaded ({reason})", where=path_or_id, remedy="copy the folder again") from None


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No load reports, warnings or progress bars of transformers inside."""
    verbosity, progress = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()
