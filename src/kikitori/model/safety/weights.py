"""What is checked of a model folder's safetensors before transformers opens them, and that its model is no larger.

transformers would unpickle what an index names, follow names out of the folder, and build a model of any size that
config.json asks for.
"""

import json
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import get_ident
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch.nn.modules import module as registry

from kikitori.errors import ModelError, first_line
from kikitori.io.untrusted import check_files, distinct
from kikitori.model.weights import SAFETENSORS, find_weights

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".nemo")
MAX_HEADER_BYTES = 2 * 2**20  # some 20,000 tensors in a file
# What transformers takes for a checkpoint of several machines, in a format that it reads with other code.
DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class WeightSize:
    """How much the safetensors files of a folder hold."""

    tensors: int
    bytes: int


def check_weights(path_or_id: str | Path) -> WeightSize | None:
    """Refuses a local folder without sound safetensors, one with pickles alone, and one with a bare adapter.

    Returns what the weights hold; None for a model on the hub.

    Raises:
        ModelError: With the file at fault.
    """
    folder = Path(path_or_id)
    if not folder.is_dir():
        return None
    check_files(folder)
    if (folder / "adapter_config.json").is_file():
        # transformers would load the base model that it names, from wherever that is.
        raise ModelError("the folder holds a LoRA adapter", where=path_or_id, remedy="give the folder of a whole model")
    sizes = [check_safetensors(file) for file in _weight_files(folder)]
    return WeightSize(sum(size.tensors for size in sizes), sum(size.bytes for size in sizes))


def check_safetensors(file: Path) -> WeightSize:
    """Reads the header of a file and none of its numbers.

    Raises:
        ModelError: It is no such file, or damaged, or its header is absurdly long or names a tensor twice.
    """
    try:
        if file.suffix != ".safetensors":
            raise ValueError("no safetensors by its name")
        with file.open("rb") as content:
            (size,) = struct.unpack("<Q", content.read(8))
            if size > MAX_HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            text = content.read(size)
        header = json.loads(text, object_pairs_hook=distinct)
        with safe_open(file, framework="pt"):  # checks that the tensors fill the file without overlap
            return WeightSize(len(header), file.stat().st_size)
    except (OSError, ValueError, RecursionError, struct.error, SafetensorError) as error:
        raise ModelError(
            f"{file.name} cannot be loaded ({first_line(error)})", where=file.parent, remedy="copy the folder again"
        ) from None


@contextmanager
def no_larger_than(size: WeightSize | None, path_or_id: str | Path) -> Iterator[None]:
    """Ends the construction of a model in transformers that has many more tensors or numbers than its weights have.

    Raises:
        ModelError: Before any memory is taken: transformers builds models on torch's `meta` device.
    """
    if size is None:
        yield
        return
    # Known models register two or three parts for each tensor. Tied matrices count twice, some buffers are in no file.
    parts, numbers = 5 * size.tensors + 500, 2 * size.bytes + 2**24
    thread = get_ident()

    def count(_: object, __: str, part: Any) -> None:
        nonlocal parts, numbers
        is_tensor = isinstance(part, torch.Tensor)
        if get_ident() != thread or (is_tensor and part.device.type != "meta"):  # another load, or loaded by now
            return
        parts -= 1
        numbers -= part.numel() if is_tensor else 0
        if parts < 0 or numbers < 0:
            raise ModelError(
                "config.json asks for a larger model than the weights are", where=path_or_id, remedy="copy both again"
            )

    handles = [
        registry.register_module_module_registration_hook(count),
        registry.register_module_parameter_registration_hook(count),
        registry.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _weight_files(folder: Path) -> list[Path]:
    """The files that transformers would load."""
    if distributed := sorted(path.name for path in folder.iterdir() if DISTRIBUTED.fullmatch(path.name)):
        raise ModelError(
            f"{distributed[0]} is a shard of a training checkpoint",
            where=folder,
            remedy="save the model with save_pretrained",
        )
    if files := find_weights(folder, SAFETENSORS):
        return files
    pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
    if pickled:
        raise ModelError(
            f"{pickled[0]} is a pickle, which can run code when it is read",
            where=folder,
            remedy="save the model again with save_pretrained, which writes safetensors",
        )
    raise ModelError(f"{SAFETENSORS} is missing", where=folder, remedy="copy the folder again")
