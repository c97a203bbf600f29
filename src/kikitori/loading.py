"""From a folder, a name or a hub id to a recogniser."""

import warnings
from dataclasses import replace
from pathlib import Path

from kikitori.align.calibration import load_calibration
from kikitori.errors import ConfigError, KikitoriWarning
from kikitori.io.model_folder import model_folder
from kikitori.kernels import limit_kernel_caches
from kikitori.model.adapters.folder import load_adapter
from kikitori.model.adapters.info import read_info
from kikitori.model.decoder.probe import check_decoding
from kikitori.model.device import Device, lay_by_columns, torch_device
from kikitori.model.encoder.family import Window
from kikitori.model.encoder_decoder import EncoderDecoder
from kikitori.model.folder import load_model
from kikitori.recognizer import CAREFUL, Precision, Recognizer
from kikitori.search.defaults import default_search, named_search
from kikitori.search.guards import Guards
from kikitori.search.options import CTCGreedySearch, Decoding, GreedySearch

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
) -> Recognizer:
    """Loads a recogniser.

    Args:
        model: A model folder, the name of one of ours (see `find_model`) or a hub id; None takes the bundled `tiny-en`.
        device: `auto` takes a GPU where there is one.
        dtype: `float32` gives the same text whatever the batch; `bfloat16` is faster and does not promise that.
        decoding: Search to use by default, by its options, a YAML file, or a name, which stands for the folder's
            `decoding.yaml` where that has this search; None takes `decoding.yaml`, or what the model can do.
        adapter: Folder of an adapter that `kikitori adapt` made for this model, or of its run; None takes the model as
            it is. A `KikitoriWarning` tells of one that changes nothing.
        guards: What transcribing does about doubtful texts; the CTC text instead of a runaway LLM's by default.
        language: Code of the language of all recordings, such as `en`, for a model that knows several; None leaves it
            to the model.
        window: What a Whisper decoder reads behind each recording: `padded`, silence up to 30 s, or `speech`, half a
            second; what is doubtful then is decoded again with `padded`.

    Raises:
        ConfigError: There is no such search.
        ModelError: A folder is missing, incomplete or unsafe, the adapter belongs to another model, or the model does
            not know the language.
    """
    limit_kernel_caches()
    folder = find_model(model)
    own = Path(folder)
    chosen = named_search(decoding, own) if isinstance(decoding, str) else decoding or default_search(own)
    loaded = load_model(folder, language=language)
    name = Path(folder).name if Path(folder).is_dir() else str(folder)
    if adapter is not None:
        loaded = load_adapter(loaded, folder, adapter)
        name = f"{name} + {'/'.join(Path(adapter).resolve().parts[-2:])}"  # as of a run: RUN/adapter
    padded = None
    if window != "padded":
        if not isinstance(loaded.model, EncoderDecoder) or not loaded.model.has_window:
            raise ConfigError("the model has no Whisper decoder", where="window", remedy="leave it out")
        behind = loaded.model.with_window(window)
        padded, loaded = loaded, replace(loaded, model=behind, trained_on=behind.trained_on)
    loaded.model.to(torch_device(device))  # type: ignore[arg-type]
    if isinstance(loaded.model, EncoderDecoder):
        lay_by_columns(loaded.model.network)
        lay_by_columns(loaded.model.output)
    if loaded.model.speech_llm is not None:
        check_decoding(loaded.model.speech_llm.llm)
    if chosen is None:
        chosen = CTCGreedySearch() if loaded.model.autoregressive is None else GreedySearch()
    if adapter is not None and "decoder" not in chosen.needs and "encoder" not in read_info(adapter).components:
        unused = f"{adapter}: {chosen.search} uses nothing that it adapts; try greedy"
        warnings.warn(unused, KikitoriWarning, stacklevel=2)
    path = own if own.is_dir() else None
    words = load_calibration(own)
    return Recognizer(loaded, chosen, name, dtype, folder=path, guards=guards, words=words, padded=padded)


def find_model(model: str | Path | None) -> str | Path:
    """The folder of a model named without a slash: one here, in the package (`tiny-en`) or in a checkout's `models/`.

    None is the bundled model, a run folder what it exported. Whatever is none of them stays as it is: a path, or the id
    of a model on the hub.

    Raises:
        ConfigError: It is a model for other software to run.
        ModelError: It is a run that has not finished.
    """
    if model is None:
        return BUNDLED
    if str(model).startswith(BASELINES):
        remedy = "give the folder or the id alone"
        raise ConfigError("only evaluate and transcribe run models of other software", where=model, remedy=remedy)
    if (exported := model_folder(model)) != str(model):
        return Path(exported)
    if Path(model).is_dir() or len(Path(model).parts) != 1:
        return model
    ours = (folder / model for folder in (BUNDLED.parent, CHECKOUT))
    return next((folder for folder in ours if (folder / "config.json").is_file()), model)
