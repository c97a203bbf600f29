"""A hostile model folder, and the pieces that such folders are made of."""

import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Build = Callable[[Path], None]

SECRET = "sesame-94e1"  # noqa: S105
"""In the environment of the child process, and no business of a model folder's."""


@dataclass(frozen=True)
class Attack:
    """A hostile folder.

    Attributes:
        name: Unique name.
        build: Fills an empty directory: `model` is the hostile folder, `outside` holds files that loading must not
            open, and planted code writes `canary`.
        loader: A key of `LOADERS`.
        refused: Whether loading must fail; otherwise the hostile part may be ignored, as long as it does no harm.
    """

    name: str
    build: Build
    loader: str = "recogniser"
    refused: bool = True


ATTACKS: list[Attack] = []


def attack(loader: str = "recogniser", *, refused: bool = True) -> Callable[[Build], Build]:
    """Registers a function that spoils the folder of a good model."""

    def register(spoil: Build) -> Build:
        add(spoil.__name__, spoil, loader, refused=refused)
        return spoil

    return register


def add(name: str, spoil: Build, loader: str = "recogniser", *, refused: bool = True) -> None:
    """Registers a spoiled copy of the folder of a good model."""
    ATTACKS.append(spoiled(name, spoil, loader, refused=refused))


def spoiled(name: str, spoil: Build, loader: str = "recogniser", *, refused: bool = True) -> Attack:
    """An attack that is not registered."""

    def build(root: Path) -> None:
        shutil.copytree(good_folder(loader), root / "model")
        (root / "outside").mkdir()
        spoil(root / "model")

    return Attack(name, build, loader, refused)


class Exploit:
    """Unpickling it runs code that creates the canary."""

    def __init__(self, model: Path) -> None:
        self.model = model

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (canary_code(self.model),)


def canary_code(model: Path) -> str:
    return f"open({str(model.parent / 'canary')!r}, 'w').close()"


def plant_module(model: Path, name: str = "evil") -> None:
    """A Python file in the folder that writes the canary when it is imported."""
    names = " = ".join(("Config", "Model", "Tokenizer", "Processor", "generate"))
    (model / f"{name}.py").write_text(f"{canary_code(model)}\n{names} = object\n")


AUTO_MAP = {
    "AutoConfig": "evil.Config",
    "AutoModel": "evil.Model",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", "evil.Tokenizer"],
    "AutoProcessor": "evil.Processor",
}


def void(_: object) -> None:
    """Lets a lambda be a statement."""


def read(file: Path) -> Any:
    return json.loads(file.read_text())


def edit(file: Path, keys: str = "", /, **changes: Any) -> None:
    """Changes entries of a JSON file, below dotted `keys`; `...` deletes."""
    values = read(file)
    inner = values
    for key in filter(None, keys.split(".")):
        inner = inner[key]
    inner.update(changes)
    for key in [key for key, value in inner.items() if value is ...]:
        del inner[key]
    file.write_text(json.dumps(values))


def config(model: Path, keys: str = "", /, **changes: Any) -> None:
    edit(model / "config.json", keys, **changes)


def insert(file: Path, text: str) -> None:
    """Puts raw text behind the opening brace of a JSON file."""
    file.write_text("{" + text + "," + file.read_text().strip().removeprefix("{"))


def entries(names: Iterable[str], value: Any) -> str:
    """Entries of a JSON object, all with the same value, for objects so large that `json.dumps` takes long."""
    end = '": ' + json.dumps(value)
    return ", ".join([f'"{name}{end}' for name in names])


def weights(model: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of model.safetensors."""
    content = (model / "model.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def write_weights(model: Path, header: Any, data: bytes = b"", name: str = "model.safetensors") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    (model / name).write_bytes(struct.pack("<Q", len(text)) + text + data)


def spoil_header(model: Path, change: Callable[[dict[str, Any]], None]) -> None:
    header, data = weights(model)
    change(header)
    write_weights(model, header, data)


def first_tensor(header: dict[str, Any]) -> dict[str, Any]:
    return header[min(name for name in header if name != "__metadata__")]


def shard(model: Path, name: str, *, move_to: Path | None = None) -> None:
    """Turns model.safetensors into the one shard `name` of an index; the file itself moves to `move_to`."""
    header, data = weights(model)
    names = [key for key in header if key != "__metadata__"]
    index = {"metadata": {"total_size": len(data)}, "weight_map": dict.fromkeys(names, name)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    target = model / name if move_to is None else move_to
    (model / "model.safetensors").rename(target)


def move_out(file: Path) -> Path:
    """Moves a file of the folder outside and leaves a link in its place."""
    target = file.parent.parent / "outside" / file.name
    file.rename(target)
    file.symlink_to(target)
    return target


@cache
def good_folder(loader: str) -> Path:
    """A folder that loads."""
    from kikitori.model.safety.config import quiet_transformers
    from tests.adapters import make_adapter
    from tests.published import save_published
    from tests.tiny import save_tiny, save_tiny_llm, tiny_acoustic_model

    holder = Path(good_root().name) / loader
    match loader:
        case "recogniser":
            save_tiny(holder)
            (holder / "decoding.yaml").write_text("search: greedy\n")
        case "acoustic":
            save_tiny(holder, tiny_acoustic_model())
        case "encoder":
            with quiet_transformers():
                tiny_acoustic_model().encoder.model.save_pretrained(holder)
        case "llm" | "units":
            save_tiny_llm(holder, "llama")
        case "published":
            save_published(holder)
        case "adapter":
            save_tiny(holder / "base")
            make_adapter(holder / "base", holder, ("llm", "bridge"))
        case "careless" | "abort":
            holder.mkdir()
    return holder


@cache
def good_root() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="good-")
