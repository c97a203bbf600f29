"""The published model of paper A, `rinna/nue-asr`: its layout read as a speech LLM of ours.

config.json (model type `nue_asr`), tensors and SentencePiece model in; `SpeechLLMConfig`, the same tensors under our
names, and label units out. Everything is checked by names and shapes before any number is read.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kikitori.errors import ConfigError, ModelError, first_line
from kikitori.io.model_folder import ModelType
from kikitori.model.acoustic_model import AcousticModelConfig
from kikitori.model.bridge import CONV_KERNEL, CONV_STRIDE
from kikitori.model.safety.config import check_config, one_line_errors, quiet_transformers, read_json
from kikitori.model.safety.load import check_loaded
from kikitori.model.safety.weights import WeightSize, check_weights, no_larger_than
from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig
from kikitori.model.weights import PICKLE, SAFETENSORS, check_numbers, find_weights, map_pickles, map_safetensors
from kikitori.text.prompt import NUE_ASR, compile_prompt
from kikitori.text.spiece import named_units, read_tokenizer
from kikitori.text.tokenizer.files import check_tokenizer
from kikitori.text.units import TokenizerUnits
from kikitori.types import TrainedOn

# The main revision holds a pickle alone. The hub's own conversion of it to safetensors waits in this pull request.
SAFETENSORS_REVISION = "refs/pr/2"
SETTINGS_FILES = ["config.json", "tokenizer_config.json", "tokenizer.json", "spiece.model"]
SAFETENSORS_FILES = ["model*.safetensors", f"{SAFETENSORS}.index.json"]
PICKLE_FILES = ["pytorch_model*.bin", f"{PICKLE}.index.json"]

TRAINED_ON = TrainedOn(labels_per_second=4.0, max_seconds=16.0, language="ja", length_rule="nue_asr", min_labels=2)
"""The limits that the release sets: 4 labels a second and 20 more, at least 2, and a warning beyond 16 s."""

Log = Callable[[str], None]

_PARTS = {  # our beginnings of names, and the release's
    "acoustic.encoder.model.": "audio_encoder.",
    "bridge.convs.": "bridge_convs.",
    "bridge.linear.": "bridge_proj.",
}
_WEIGHT_NORM = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
# The causal mask and the rotary frequencies, which old releases of transformers kept with the weights.
_BUFFER = re.compile(r"llm\.gpt_neox\.layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)")


@dataclass(frozen=True, eq=False)
class Published:
    """The published model in our form.

    Attributes:
        tensors: Its tensors under the names of our model folders, still on disk and of the type that they have there.
    """

    config: SpeechLLMConfig
    tensors: dict[str, Tensor]
    units: TokenizerUnits


def open_published(path_or_id: str | Path, *, pickle_log: Log | None = None) -> Published:
    """Opens and checks a folder in the published layout, or a model of that kind on the hub.

    With a log, which gets a notice, a pickled `.bin` is taken too where there are no safetensors.

    Raises:
        ModelError: A file is missing, damaged or unsafe, or something does not fit.
    """
    values = read_json(path_or_id, "config.json")
    if values.get("model_type") != ModelType.NUE_ASR:
        raise ModelError(
            f"model type {values.get('model_type')!r} is not {ModelType.NUE_ASR.value!r}",
            where=path_or_id,
            remedy="name the published model",
        )
    folder, tensors = _mapped(path_or_id, pickle_log)
    units = published_units(folder, path_or_id)
    config = published_config(values, units, path_or_id)
    return Published(config, our_tensors(config, tensors, path_or_id), units)


def load_published(path_or_id: str | Path) -> tuple[SpeechLLM, TokenizerUnits]:
    """The published model, in float32, and its label units.

    Raises:
        ModelError: See `open_published`, or tensors are missing or damaged.
    """
    published = open_published(path_or_id)
    model_class: Any = SpeechLLM
    with one_line_errors(path_or_id), quiet_transformers():
        model, info = model_class.from_pretrained(
            None,
            config=published.config,
            state_dict=published.tensors,
            dtype=torch.float32,
            output_loading_info=True,
        )
    check_loaded(path_or_id, model, sorted({*info["missing_keys"], *info["unexpected_keys"]}))
    return model.eval(), published.units


def published_units(folder: Path, where: str | Path) -> TokenizerUnits:
    """Label units of the release: its `tokenizer.json` if it has one, else its `spiece.model`.

    Raises:
        ModelError: There is neither, or it is damaged.
    """
    check_tokenizer(folder)
    for name in ("tokenizer.json", "spiece.model"):
        if (folder / name).is_file():
            with one_line_errors(where):
                return named_units(read_tokenizer(folder / name), read_json(folder, "tokenizer_config.json"))
    raise ModelError("spiece.model is missing", where=where, remedy="copy the folder again")


def published_config(values: dict[str, Any], units: TokenizerUnits, where: str | Path) -> SpeechLLMConfig:
    """Our configuration from the release's config.json.

    Raises:
        ModelError: With the key that we cannot take.
    """
    check_config(where, values)
    encoder = _section(values, "audio_encoder_config", "hubert", where)
    llm = _section(values, "llm_config", "gpt_neox", where)
    for key, expected in (("bridge_conv_kernel_size", [CONV_KERNEL] * 2), ("bridge_conv_stride", [CONV_STRIDE] * 2)):
        if values.get(key) != expected:
            raise ModelError(
                f"config.json has {key} {values.get(key)}, where {expected} is read",
                where=where,
                remedy="take the published model",
            )
    try:
        prompt = compile_prompt(NUE_ASR, units)
    except ConfigError as error:
        raise ModelError(error.what, where=where, remedy="copy the tokenizer files that belong to it") from None
    with one_line_errors(where), quiet_transformers():
        config = SpeechLLMConfig(
            # The release feeds the waveform as it is.
            AcousticModelConfig({**encoder, "do_normalize": False}),
            llm,
            bridge="conv",
            bridge_stride=CONV_STRIDE**2,
            prompt_before=prompt.before,
            prompt_after=prompt.after,
            eos_id=prompt.eos,
        )
    if units.size > config.llm_config.vocab_size:
        raise ModelError(
            f"the tokenizer has {units.size} labels, the model {config.llm_config.vocab_size}",
            where=where,
            remedy="copy the tokenizer files that belong to it",
        )
    return config


def our_tensors(config: SpeechLLMConfig, tensors: Mapping[str, Tensor], where: str | Path) -> dict[str, Tensor]:
    """The release's tensors under our names; reads none of their numbers.

    Raises:
        ModelError: A tensor is missing, is one too many, or has another shape or type than config.json says.
    """
    size = WeightSize(len(tensors), sum(tensor.nbytes for tensor in tensors.values()))
    with one_line_errors(where), quiet_transformers(), no_larger_than(size, where), torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in SpeechLLM(config).state_dict().items()}
    ours: dict[str, Tensor] = {}
    left = {name for name in tensors if not _BUFFER.fullmatch(name)}
    for name, shape in expected.items():
        theirs = _published_names(name)
        found = next((alias for alias in theirs if alias in left), None)
        if found is None:
            raise ModelError(f"the tensor {theirs[0]} is missing", where=where, remedy="copy the folder again")
        check_numbers(where, found, tensors[found])
        if tuple(tensors[found].shape) != shape:
            got = tuple(tensors[found].shape)
            raise ModelError(
                f"the tensor {found} has shape {got}, config.json says {shape}",
                where=where,
                remedy="take config.json and weights of the same model",
            )
        left.remove(found)
        ours[_saved_name(name)] = tensors[found]
    if left:
        raise ModelError(
            f"the tensor {min(left)} belongs to no part of the model", where=where, remedy="take the published model"
        )
    return ours


def _saved_name(name: str) -> str:
    # The module's name differs between releases of transformers; they all save and read it under this one.
    return name.replace("llm.lm_head.", "llm.embed_out.")


def _published_names(name: str) -> list[str]:
    """What the release may call a tensor of ours; the positional convolution's two depend on who wrote them."""
    for ours, theirs in _PARTS.items():
        if name.startswith(ours):
            name = theirs + name.removeprefix(ours)
    name = _saved_name(name)
    for new, old in _WEIGHT_NORM.items():
        if name.endswith(new):
            return [name.removesuffix(new) + old, name]
    return [name]


def _section(values: dict[str, Any], key: str, model_type: str, where: object) -> dict[str, Any]:
    """Configuration of a part, without the type that its numbers have on disk."""
    section = values.get(key)
    found = section.get("model_type") if isinstance(section, dict) else None
    if not isinstance(section, dict) or found != model_type:
        raise ModelError(
            f"config.json has model type {found!r} in {key}, where {model_type!r} is read",
            where=where,
            remedy="take the published model",
        )
    return {name: value for name, value in section.items() if name not in ("torch_dtype", "dtype")}


def _mapped(path_or_id: str | Path, pickle_log: Log | None) -> tuple[Path, dict[str, Tensor]]:
    """The folder of settings and tokenizer, and the tensors by their published names."""
    folder = weights = Path(path_or_id)
    if not folder.is_dir():
        folder, weights = _fetched(str(path_or_id), pickles=pickle_log is not None)
    if files := find_weights(weights, SAFETENSORS):
        check_weights(weights)
        return folder, map_safetensors(files)
    pickles = find_weights(weights, PICKLE)
    if pickles and pickle_log is not None:
        return folder, map_pickles(pickles, pickle_log)
    if pickles or not Path(path_or_id).is_dir():
        found = f"{pickles[0].name} is a pickle, which can run code when it is read" if pickles else "no safetensors"
        raise ModelError(found, where=path_or_id, remedy=f"run kikitori convert nue-asr {path_or_id} -o FOLDER")
    raise ModelError(f"{SAFETENSORS} is missing", where=path_or_id, remedy="copy the folder again")


def _fetched(model_id: str, *, pickles: bool) -> tuple[Path, Path]:
    """Two folders with files from the hub: settings and tokenizer, and weights, pickled ones only where allowed."""
    settings = weights = _snapshot(model_id, SETTINGS_FILES, None)
    for revision in (None, SAFETENSORS_REVISION):
        weights = _snapshot(model_id, SAFETENSORS_FILES, revision)
        if find_weights(weights, SAFETENSORS):
            return settings, weights
    return settings, _snapshot(model_id, PICKLE_FILES, None) if pickles else settings


def _snapshot(model_id: str, files: list[str], revision: str | None) -> Path:
    """A folder with those of the files that there are; with none of them if there is no such revision."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=files))
    except Exception as error:  # noqa: BLE001  (what a network can raise has no end)
        if revision is not None and isinstance(error, LocalEntryNotFoundError | RevisionNotFoundError):
            return Path(model_id)  # no such folder, so there is nothing in it
        what = f"cannot be fetched ({first_line(error)})"
        raise ModelError(what, where=model_id, remedy="check the hub id and the network") from None
