"""Folders with two decoders over one encoder: a speech LLM in `speech_llm/` within a recogniser's own folder.

It holds only what is its own: bridge and interface in `model.safetensors`, the LLM as a folder of transformers in
`llm/`, both in float16, label units, and settings of its searches. `config.json` names the folder around it as its
base, with a digest of the encoder and heads there, which the two decoders share.
"""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from kikitori.errors import ModelError
from kikitori.io.files import write_text
from kikitori.io.model_folder import AROUND, BASE, CONFIG, SPEECH_LLM, ModelType
from kikitori.model.acoustic import AcousticNetwork
from kikitori.model.published.aed import family_of
from kikitori.model.published.part import misfit, part_tensors, save_tensors, values_digest
from kikitori.model.safety.config import check_config, one_line_errors, read_json
from kikitori.types import DecoderName

if TYPE_CHECKING:
    from kikitori.model.published.speech_llm_part import LoadLLM
    from kikitori.model.speech_llm import SpeechLLM

LLM = "llm"
"""Folder of the LLM within that of the second decoder."""


def decoder_folder(path_or_id: str | Path, decoder: DecoderName | None) -> str | Path:
    """The folder that holds a decoder: a recogniser's own, or that of its second decoder within it.

    Args:
        path_or_id: Folder or hub id of a recogniser.
        decoder: Which; None takes `encoder_decoder` where there are both, and reads nothing where there is one.

    Raises:
        ModelError: There is no such decoder, or no readable config.json.
    """
    if decoder is None and not _has_second(path_or_id):
        return path_or_id
    found = decoders_in(path_or_id)
    if decoder is None:
        return next(iter(found.values()))
    if decoder not in found:
        own = Path(path_or_id) / SPEECH_LLM
        if decoder == SPEECH_LLM and own.is_dir():
            raise ModelError(f"{CONFIG} is missing", where=own, remedy="copy the folder again")
        there = " and ".join(found) or "no decoder"
        raise ModelError(f"there is no {decoder}, but {there}", where=path_or_id, remedy="leave --decoder out")
    return found[decoder]


def decoders_in(path_or_id: str | Path) -> dict[DecoderName, str | Path]:
    """The folders of a recogniser's decoders, the one first that it has by default.

    Raises:
        ModelError: There is no readable config.json.
    """
    config = read_json(path_or_id, CONFIG)
    kind, found = str(config.get("model_type")), dict[DecoderName, str | Path]()
    if family_of(path_or_id, config) or (kind == ModelType.ACOUSTIC_MODEL and BASE in config):
        found["encoder_decoder"] = path_or_id
    if kind in (ModelType.SPEECH_LLM, ModelType.NUE_ASR):
        found["speech_llm"] = path_or_id
    elif _has_second(path_or_id):
        found["speech_llm"] = Path(path_or_id) / SPEECH_LLM
    return found


def save_second_decoder(directory: Path, model: "SpeechLLM", around: AcousticNetwork, where: str | Path) -> None:
    """Writes `config.json` and `model.safetensors` of a speech LLM, without the LLM.

    Args:
        directory: Folder to write into.
        model: The speech LLM.
        around: Encoder and heads of the recogniser that it is put into.
        where: Where the speech LLM comes from, for errors.

    Raises:
        ModelError: Its encoder or heads are others.
        OSError: The folder cannot be written.
    """
    from kikitori.model.published.speech_llm_part import trained_tensors

    _check_shared(model.acoustic, around, where)
    save_tensors(directory, trained_tensors(model))
    base = {"name": AROUND, "digest": values_digest(around)}
    values = {**copy.deepcopy(model.config).to_dict(), BASE: base}
    write_text(directory / CONFIG, json.dumps(values, indent=2, sort_keys=True, default=str) + "\n")


def load_second_decoder(
    folder: str | Path, values: Mapping[str, Any], around: AcousticNetwork, load_llm: "LoadLLM"
) -> "SpeechLLM":
    """The speech LLM of a folder, in float32, on the encoder and heads of the recogniser around it.

    Args:
        folder: Of the speech LLM.
        values: Its `config.json`.
        around: Encoder and heads, which become parts of the result as they are.
        load_llm: What loads an LLM from its folder.

    Raises:
        ModelError: Encoder or heads are others than in its training, or tensors are missing, damaged or unknown.
    """
    from kikitori.model.acoustic_model import acoustic_config
    from kikitori.model.published.speech_llm_part import fill_trained
    from kikitori.model.speech_llm import SpeechLLM, SpeechLLMConfig

    check_config(folder, values)
    found, wanted = values_digest(around), str(values[BASE].get("digest"))
    if found != wanted:
        what = f"encoder and heads around it are others than in its training ({found[:12]}, wanted {wanted[:12]})"
        raise ModelError(what, where=folder, remedy="put it in again with kikitori convert decoder")
    if not (Path(folder) / LLM).is_dir():
        raise ModelError(f"the folder {LLM} is missing", where=folder, remedy="copy the folder again")
    llm = load_llm(Path(folder) / LLM)
    own = {key: value for key, value in values.items() if key not in ("model_type", BASE)}
    with one_line_errors(folder):
        config = SpeechLLMConfig(**{**own, "acoustic_config": acoustic_config(around), "llm_config": llm.config})
        try:
            model = SpeechLLM(config, acoustic=around, llm=llm)
        except RuntimeError as error:
            raise misfit(folder, "the LLM's sizes") from error
        fill_trained(folder, model, part_tensors(folder))
    return model.eval()  # type: ignore[no-any-return, no-untyped-call]


def _has_second(path_or_id: str | Path) -> bool:
    return (Path(path_or_id) / SPEECH_LLM / CONFIG).is_file()


def _check_shared(ours: AcousticNetwork, theirs: AcousticNetwork, where: str | Path) -> None:
    """Refuses an encoder or heads that are not those of another model, which may have further heads."""
    state = theirs.state_dict()
    others = (n for n, each in ours.state_dict().items() if n not in state or not torch.equal(each, state[n]))
    differs = next(others, None)
    for heads in ("ctc_layers", "phone_layers"):
        if (last := getattr(ours.config, heads)[-1:]) and last != getattr(theirs.config, heads)[-1:]:
            differs = differs or heads
    windows = {getattr(each.encoder.config, "window", "padded") for each in (ours, theirs)}
    if len(windows) > 1:
        differs = differs or "encoder.window"
    if differs is not None:
        remedy = "train it with that recogniser as encoder.init, encoder.policy and ctc.policy frozen"
        raise ModelError(f"its {differs} is not that of the recogniser", where=where, remedy=remedy)
