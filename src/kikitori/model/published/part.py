"""Trained parts of a published model: a small folder that names its base and holds what training has changed.

Here CTC heads on the encoder of a Whisper, with the layers that were trained for them; those of speech LLMs are in
`speech_llm_part`. `config.json` names the base by hub id and by a digest of its tensors, so that the form of its files
does not matter.
"""

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from kikitori.errors import ModelError
from kikitori.io.model_folder import BASE
from kikitori.model.acoustic import AcousticNetwork, HeadConfig
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.safety.config import check_config, one_line_errors
from kikitori.model.safety.weights import check_weights
from kikitori.model.weights import SAFETENSORS, check_finite, find_weights, map_safetensors
from kikitori.model.whisper.config import WhisperConfig
from kikitori.model.whisper.network import Whisper, WhisperEncoder

if TYPE_CHECKING:
    from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig

PARTS = "KIKITORI_PARTS"
"""Environment variable that names a folder with base models in it."""
ENCODER = "encoder.model."


def base_names(config: Mapping[str, Any]) -> list[str]:
    """The names of the models that a folder's `config.json` asks for beside it; of most folders none."""
    base = config.get(BASE) or {}
    return [str(each.get("name")) for each in ([base] if "name" in base else base.values())]


def find_base(name: str, part: str | Path | None = None) -> str | Path:
    """Where a base lies: in its part's folder, in the one that `KIKITORI_PARTS` names, at its path, or on the hub.

    In the first two it is looked for under the last piece of its name, in the second also in lower case.
    """
    last, parts = name.rpartition("/")[2], os.environ.get(PARTS)
    if part is not None and last and (Path(part) / last).is_dir():
        return Path(part) / last
    if Path(name).is_dir():
        return Path(name)
    places = [Path(parts) / last, Path(parts) / last.lower()] if parts and last else []
    return next((place for place in places if place.is_dir()), name)


def values_digest(model: nn.Module) -> str:
    """SHA-256 of a network's parameters in float16 by name, tied ones once; equal whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().to(torch.float16).contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def base_encoder(whisper: Any, model: AcousticNetwork, name: str, run: str | Path) -> SpeechEncoder:
    """The encoder of a Whisper, which an acoustic model started from.

    Raises:
        ModelError: The model's encoder is of another kind or size than the one of that name.
    """
    encoder = SpeechEncoder(whisper.config, model=whisper.model.encoder)
    if encoder.config.model_type != model.encoder.config.model_type or encoder.dim != model.encoder.dim:
        raise ModelError(f"its encoder is not that of {name}", where=run, remedy="name the base that it started from")
    return encoder


def own_tensors(model: AcousticNetwork, base: SpeechEncoder) -> dict[str, Tensor]:
    """What of an acoustic model is not its base encoder's: heads, and encoder tensors that training has changed."""
    theirs = base.model.state_dict()
    found = {}
    for name, tensor in model.state_dict().items():
        old = theirs.get(name.removeprefix(ENCODER)) if name.startswith(ENCODER) else None
        if old is None or not torch.equal(old.cpu(), tensor.cpu()):
            found[name] = tensor.detach().cpu()
    return found


def shared_layers(names: Mapping[str, Any], num_layers: int) -> int:
    """How many of an encoder's first layers are the base's, by the names of the part's tensors.

    Raises:
        ModelError: The part holds something below the layers.
    """
    prefix, lowest = f"{ENCODER}layers.", num_layers
    for name in names:
        if name.startswith(prefix):
            lowest = min(lowest, int(name.removeprefix(prefix).partition(".")[0]))
        elif name.startswith(ENCODER) and not name.startswith(f"{ENCODER}layer_norm."):
            raise ModelError(f"it holds {name}, below the layers", remedy="train with encoder.policy top or frozen")
    return lowest


def save_tensors(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes the part's tensors, in float16.

    Raises:
        OSError: The folder cannot be written.
    """
    halves = {name: tensor.to(torch.float16).contiguous() for name, tensor in tensors.items()}
    save_file(halves, directory / SAFETENSORS, metadata={"format": "pt"})


def part_tensors(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a part by name, as they are stored.

    Raises:
        ModelError: They are missing, damaged or not finite.
    """
    check_weights(folder)
    tensors = map_safetensors(find_weights(Path(folder), SAFETENSORS))
    for name, tensor in tensors.items():
        check_finite(folder, name, tensor)
    return tensors


def load_heads(folder: str | Path, values: Mapping[str, Any], network: Any) -> tuple[AcousticNetwork, int]:
    """CTC heads on the encoder of a base, with what training changed of it, and how many of its layers are the base's.

    Args:
        folder: The part's folder.
        values: Its `config.json`.
        network: The base, a `Whisper` or another encoder-decoder.

    Raises:
        ModelError: The base is another one, or tensors are missing, damaged or unknown.
    """
    check_config(folder, values)
    check_digest(folder, values[BASE], network)
    tensors = part_tensors(folder)
    if network.config.model_type == WhisperConfig.model_type:
        model = _whisper_heads(folder, values, network, tensors)
    else:
        from kikitori.model.acoustic_model import AcousticModelConfig

        settings = {key: value for key, value in values.items() if key not in ("model_type", BASE)}
        model = whole_acoustic(folder, AcousticModelConfig(**settings), network, tensors)
    return model, shared_layers(tensors, model.encoder.num_layers)


def _whisper_heads(
    folder: str | Path, values: Mapping[str, Any], whisper: Whisper, tensors: Mapping[str, Tensor]
) -> AcousticNetwork:
    """Heads on a Whisper's encoder whose own layers are in memory twice, and all that it shares once."""
    names = {each.name for each in fields(HeadConfig)}
    with one_line_errors(folder):
        settings = {key: value for key, value in values.items() if key in names}
        config = HeadConfig(**{**settings, "encoder_config": WhisperConfig.of(values["encoder_config"])})
        with torch.device("meta"):
            encoder = SpeechEncoder(config.encoder_config, model=WhisperEncoder(config.encoder_config))
            model = AcousticNetwork(config, encoder)
        found = {f"{ENCODER}{name}": tensor for name, tensor in whisper.model.encoder.state_dict().items()}
        found |= {name: tensor.float() for name, tensor in tensors.items()}
        info = model.load_state_dict(found, strict=False, assign=True)
    _check_names(folder, [*info.unexpected_keys, *info.missing_keys])
    return model.eval()


def check_digest(folder: str | Path, base: Mapping[str, Any], network: nn.Module) -> None:
    """Refuses a base with other weights than those that a part was trained on.

    Args:
        folder: The part's folder.
        base: What its `config.json` says of the base: `name` and `digest`.
        network: The base that was found.

    Raises:
        ModelError: Its digest is another one.
    """
    found, wanted = values_digest(network), str(base.get("digest"))
    if found != wanted:
        raise ModelError(
            f"its base {base.get('name')} has other weights (digest {found[:12]}, wanted {wanted[:12]})",
            where=folder,
            remedy=f"take the release that it was trained on, or name its folder's parent with {PARTS}",
        )


def whole_acoustic(
    folder: str | Path, config: "AcousticModelConfig", whisper: Any, tensors: Mapping[str, Tensor]
) -> "AcousticModel":
    """An acoustic model of a Whisper's encoder and a part's tensors.

    Raises:
        ModelError: Tensors are missing or unknown.
    """
    from kikitori.model.acoustic_model import AcousticModel

    encoder = SpeechEncoder(config.encoder_config)
    encoder.model.load_state_dict(whisper.model.encoder.state_dict())
    model = AcousticModel(config, encoder=encoder)
    info = model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    _check_names(folder, [*info.unexpected_keys, *(key for key in info.missing_keys if not key.startswith(ENCODER))])
    return model


def misfit(folder: str | Path, what: str) -> ModelError:
    """Weights and configuration that do not belong together."""
    return ModelError(f"the weights do not fit config.json at {what}", where=folder, remedy="copy it again")


def _check_names(folder: str | Path, wrong: Sequence[str]) -> None:
    if wrong:
        raise misfit(folder, wrong[0])


def part_config(config: "AcousticModelConfig", name: str, digest: str) -> dict[str, Any]:
    """`config.json` of a part."""
    values = copy.deepcopy(config).to_dict()
    return {**values, BASE: {"name": name, "digest": digest}}
