"""From a folder, a name or a hub id to a recogniser."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kikitori.align.calibration import load_calibration
from kikitori.errors import ConfigError, KikitoriWarning, ModelError
from kikitori.io.model_folder import DECODING, SPEECH_LLM, around, model_folder
from kikitori.kernels import limit_kernel_caches
from kikitori.model.device import Device, lay_by_columns, torch_device
from kikitori.model.encoder.family import Window
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import LoadedModel, load_model, with_speech_llm
from kikitori.model.published.part import find_base
from kikitori.model.published.second_decoder import decoder_folder, decoders_in
from kikitori.model.safety.config import is_hub_id
from kikitori.model.safety.fetch import fetched
from kikitori.model.safety.hub import hub_id
from kikitori.model.whisper.int8 import to_int8
from kikitori.recognizer import CAREFUL, Precision, Recognizer
from kikitori.search.defaults import default_search, named_search
from kikitori.search.guards import Guards
from kikitori.search.options import CTCGreedySearch, Decoding, GreedySearch, asked_decoder
from kikitori.types import DecoderName

if TYPE_CHECKING:
    from kikitori.model.folder import Recogniser

BUNDLED = Path(__file__).parent / "models" / "tiny-en"
BASELINES = ("hf:", "ct2:")
"""Prefixes of models that other software runs, see `kikitori.baselines`."""
CHECKOUT = Path(__file__).parents[2] / "models"
"""Where a checkout of the repository has models that are too large for the package."""


def load(
    model: str | Path | None = None,
    *,
    device: Device = "auto",
    dtype: Precision = "float32",
    decoding: Decoding | str | None = None,
    adapter: str | Path | None = None,
    guards: Guards = CAREFUL,
    language: str | None = None,
    window: Window = "padded",
    decoder: DecoderName | None = None,
) -> Recognizer:
    """Loads a recogniser.

    Args:
        model: A model folder, the name of one of ours (see `find_model`) or a hub id; None takes the bundled `tiny-en`.
        device: `auto` takes a GPU where there is one.
        dtype: `float32` gives the same text whatever the batch; `bfloat16` is faster on some devices and does not
            promise that. `int8` is for Whisper's networks on a CPU: linear layers in 8 bits, the rest in float32.
        decoding: Search to use by default, by its options, a YAML file, or a name, which stands for the folder's
            `decoding.yaml` where that has this search; None takes `decoding.yaml`, or what the model can do.
        adapter: Folder of an adapter that `kikitori adapt` made for this model, or of its run; None takes the model as
            it is. A `KikitoriWarning` tells of one that changes nothing.
        guards: What transcribing does about doubtful texts; the CTC text instead of a runaway LLM's by default.
        language: Code of the language of all recordings, such as `en`, for a model that knows several; None leaves it
            to the model.
        window: What a Whisper decoder reads behind each recording: `padded`, silence up to 30 s, or `speech`, half a
            second; what is doubtful then is decoded again with `padded`.
        decoder: Which decoder of a folder that holds two; None takes the one that `decoding` asks for, and else
            `encoder_decoder`. The other one is not read; `with_decoder` gives it with the same encoder in memory.

    Raises:
        ConfigError: There is no such search; or no `int8` for this model, device or processor.
        ModelError: A folder is missing, incomplete or unsafe, the adapter belongs to another model, or the model does
            not know the language or has no such decoder.
    """
    limit_kernel_caches()
    folder = fetch_model(model, decoder or asked_decoder(decoding))
    own = Path(folder)
    chosen = named_search(decoding, own) if isinstance(decoding, str) else decoding or own_search(own)
    loaded = load_model(folder, language=language)
    name = model_name(folder)
    if adapter is not None:
        from kikitori.model.adapters.folder import load_adapter

        loaded = load_adapter(loaded, folder, adapter)
        name = f"{name} + {'/'.join(Path(adapter).resolve().parts[-2:])}"  # as of a run: RUN/adapter
    padded = None
    if window != "padded":
        if not isinstance(loaded.model, EncoderDecoder) or not loaded.model.has_window:
            raise ConfigError("the model has no Whisper decoder", where="window", remedy="leave it out")
        behind = loaded.model.with_window(window)
        padded, loaded = loaded, replace(loaded, model=behind, trained_on=behind.trained_on)
    loaded.model.to(torch_device(device))  # type: ignore[arg-type]
    if dtype == "int8":
        _to_int8(loaded.model)
    if isinstance(loaded.model, EncoderDecoder):
        lay_by_columns(loaded.model.network)
        lay_by_columns(loaded.model.output)
    recognizer = _recognizer(loaded, chosen, folder, name, dtype, guards, padded)
    needs = recognizer.decoding.needs
    if adapter is not None and "decoder" not in needs and not _adapts_encoder(adapter):
        unused = f"{adapter}: {recognizer.decoding.search} uses nothing that it adapts; try greedy"
        warnings.warn(unused, KikitoriWarning, stacklevel=2)
    return recognizer


def with_decoder(recognizer: Recognizer, decoder: DecoderName) -> Recognizer:
    """A recogniser with the second decoder of its folder and the search there; encoder and heads are in memory once.

    Args:
        recognizer: Of a folder, with the decoder that this has by default.
        decoder: Which; its own gives the recogniser itself.

    Raises:
        ConfigError: The second decoder's own search is none.
        ModelError: There is no such decoder beside that of the recogniser, or its files are damaged or unsafe.
    """
    if decoder == recognizer.decoder:
        return recognizer
    folder = Path(find_model(recognizer.folder or recognizer.name, decoder))
    if recognizer.folder is None or around(folder) != recognizer.folder.resolve():
        what = f"{decoder} is no second decoder beside {recognizer.decoder}"
        raise ModelError(what, where=recognizer.name, remedy="load it by itself")
    loaded = with_speech_llm(recognizer.loaded, folder)
    loaded.model.to(recognizer.device)  # type: ignore[arg-type]
    dtype, guards = recognizer.dtype, recognizer.guards
    return _recognizer(loaded, own_search(folder), folder, model_name(folder), dtype, guards)


def own_search(folder: Path) -> Decoding | None:
    """The search of a model folder (`decoding.yaml`), which is one of its own decoder; None where it has none.

    Raises:
        ConfigError: The file is no search, or asks for the other decoder of the folder.
        ModelError: It names what is not in the folder, or the folder holds what is no plain file.
    """
    search = default_search(folder)
    asked = None if search is None else search.decoder
    if asked is not None and decoders_in(folder).get(asked) != folder:
        what = f"{asked} is not the decoder of this folder"
        raise ConfigError(what, where=f"{folder / DECODING}: decoder", remedy="take the line out")
    return search


def model_name(folder: str | Path) -> str:
    """What reports call the recogniser of a folder or a hub id; `MODEL/speech_llm` is the second decoder of MODEL."""
    path = Path(folder)
    if not path.is_dir():
        return str(folder)
    if (outer := around(path)) is not None:
        return f"{model_name(outer)}/{path.resolve().name}"
    return hub_id(path) or path.name


def _recognizer(
    loaded: LoadedModel,
    search: Decoding | None,
    folder: str | Path,
    name: str,
    dtype: Precision,
    guards: Guards,
    padded: LoadedModel | None = None,
) -> Recognizer:
    """A recogniser of what was loaded; without a search that of its decoder, or of the CTC head."""
    if loaded.model.speech_llm is not None:
        from kikitori.model.decoder.probe import check_decoding

        check_decoding(loaded.model.speech_llm.llm)
    if search is None:
        search = CTCGreedySearch() if loaded.model.autoregressive is None else GreedySearch()
    path, words = Path(folder), load_calibration(Path(folder))
    lies = path if path.is_dir() else None
    return Recognizer(loaded, search, name, dtype, folder=lies, guards=guards, words=words, padded=padded)


def _to_int8(model: "Recogniser") -> None:
    """Puts the linear layers of a Whisper into 8 bits."""
    if not isinstance(model, EncoderDecoder) or not model.has_window:
        raise ConfigError("int8 is there for Whisper's networks alone", where="dtype", remedy="use float32")
    if model.acoustic.device.type != "cpu":
        raise ConfigError("int8 is there on a CPU alone", where="dtype", remedy="use bfloat16")
    to_int8(model)


def _adapts_encoder(adapter: str | Path) -> bool:
    from kikitori.model.adapters.info import read_info

    return "encoder" in read_info(adapter).components


def find_model(model: str | Path | None, decoder: DecoderName | None = None) -> str | Path:
    """The folder of a model named without a slash: one here, in the package (`tiny-en`) or in a checkout's `models/`.

    `NAME/speech_llm` is the second decoder of such a one, None the bundled model, a run folder what it exported. A hub
    id is looked for in the folder that `KIKITORI_PARTS` names first, by its last part. Whatever is none of them stays
    as it is: a path, or the id of a model on the hub. Of a folder with two decoders it is the one that holds what is
    asked for.

    Raises:
        ConfigError: It is a model for other software to run.
        ModelError: It is a run that has not finished, or has no such decoder.
    """
    return decoder_folder(_found(model), decoder)


def fetch_model(model: str | Path | None, decoder: DecoderName | None = None) -> str | Path:
    """As `find_model`, for a hub id the folder of its files in the hub's cache (`kikitori.model.safety.fetch`).

    Raises:
        ConfigError: See `find_model`.
        ModelError: See there; or it is not on the hub, or cannot be fetched.
    """
    return decoder_folder(fetched(_found(model)), decoder)


def _found(model: str | Path | None) -> str | Path:
    if model is None:
        return BUNDLED
    if str(model).startswith(BASELINES):
        remedy = "give the folder or the id alone"
        raise ConfigError("only evaluate and transcribe run models of other software", where=model, remedy=remedy)
    if (exported := model_folder(model)) != str(model):
        return Path(exported)
    path = Path(model)
    if path.is_dir():
        return model
    if len(path.parts) > 1:
        if path.name == SPEECH_LLM and (whole := Path(_found(path.parent))).is_dir():
            return whole / SPEECH_LLM
        return find_base(str(model)) if is_hub_id(model) else model
    ours = (folder / model for folder in (BUNDLED.parent, CHECKOUT))
    return next((folder for folder in ours if (folder / "config.json").is_file()), model)
