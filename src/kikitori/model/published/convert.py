"""Published models in other layouts become model folders of ours, shard by shard, in the type they have on disk."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers import GenerationConfig

from kikitori.errors import ModelError
from kikitori.io.files import replace_folder, write_text
from kikitori.io.model_folder import CTC_UNITS, DECODING, SPEECH_LLM, copy_search_files, forget_places, model_folder
from kikitori.model.acoustic_model import as_acoustic_model
from kikitori.model.adapters.folder import load_adapter
from kikitori.model.adapters.lora import merged_copy
from kikitori.model.folder import load_llm, load_model, save_network, save_sides
from kikitori.model.published.aed import encoder_decoder, load_network
from kikitori.model.published.card import write_card
from kikitori.model.published.ctranslate2 import generation_values, is_ctranslate2, is_quantized, read_arrays
from kikitori.model.published.nue_asr import TRAINED_ON, Published, open_published
from kikitori.model.published.part import (
    base_encoder,
    find_base,
    own_tensors,
    part_config,
    save_tensors,
    shared_layers,
    values_digest,
)
from kikitori.model.published.second_decoder import LLM, save_second_decoder
from kikitori.model.published.speech_llm_part import ADAPTER, save_speech_llm_part
from kikitori.model.published.whisper import as_transformers
from kikitori.model.safety.config import read_json
from kikitori.model.speech_llm import SpeechLLM
from kikitori.model.weights import SHARD_BYTES, write_safetensors
from kikitori.text.units import load_units

CARD = """---
license: apache-2.0
language: ja
library_name: kikitori
base_model: rinna/nue-asr
pipeline_tag: automatic-speech-recognition
---
# Nue-ASR for kikitori

A Japanese speech recogniser: `{source}`, converted by `kikitori convert nue-asr`. The weights are those of the source,
in the type that they have there ({dtype}); kikitori computes in float32. No number was changed.

* **What it is.** HuBERT frames of 20 ms, two convolutions (kernel 4, stride 2) and a linear map to speech positions of
  80 ms, a GPT-NeoX language model that reads `<s>` speech `[SEP]` and writes the transcript. Hono et al., "Integrating
  Pre-Trained Speech and Language Models for End-to-End Speech Recognition" (arXiv 2312.03668).
* **Input.** 16 kHz mono, taken as it is, without normalisation. Recordings beyond 16 s are cut at
  pauses, because the model has learnt from nothing longer.
* **Decoding.** Greedy; at least 2 labels, at most 4 per second and 20 more.
* **Licence.** Apache-2.0, the licence of the source. The conversion adds no terms of its own.

```
kikitori transcribe --model THIS_FOLDER talk.wav
```
"""


def convert_ctranslate2(source: Path, output: Path, log: Callable[[str], None]) -> None:
    """Writes a Whisper of CTranslate2 (faster-whisper) as a folder of transformers, in float32.

    Args:
        source: Its folder, with the tokenizer.
        output: Folder to write; it must not exist, or be empty.
        log: Told if the weights were whole numbers, which lost something when they were made.

    Raises:
        ModelError: The source is no such folder or damaged, or the output is not empty or cannot be written.
    """
    _refuse_existing(output)
    if not is_ctranslate2(source):
        raise ModelError("there is no model.bin alone", where=source, remedy="name a folder of CTranslate2")
    config, units = read_json(source, "config.json"), load_units(source)
    network = load_network(source, config, units)
    encoder_decoder(source, network, units, None)  # what a recogniser would refuse
    if is_quantized(read_arrays(source)):
        log("the weights are whole numbers with scales; what was lost when they were made stays lost")
    theirs = as_transformers(network)
    theirs.generation_config = GenerationConfig(**generation_values(source, units))
    with _new_folder(output) as staging:
        save_network(staging, theirs)
        units.save(staging)
        write_card(
            staging,
            output.name,
            f"`{source.resolve().name}`, a Whisper of CTranslate2, as a folder of transformers in float32, made by "
            "`kikitori convert ctranslate2`.",
            library="transformers",
        )


def convert_heads(run: str | Path, name: str, output: Path) -> None:
    """Writes the CTC heads of a run on the encoder of a Whisper, or another AED, as a part that names its base.

    Args:
        run: An acoustic model whose encoder started from the base and was trained in its last layers or not at all.
        name: Hub id of the base; see `kikitori.model.published.part.find_base` for where it is looked up.
        output: Folder to write; it must not exist, or be empty.

    Raises:
        ModelError: The run is no such model, or the output is not empty or cannot be written.
    """
    _refuse_existing(output)
    loaded, base = load_model(model_folder(run)), find_base(name)
    heads = as_acoustic_model(loaded.model.acoustic)
    network = load_network(base, read_json(base, "config.json"))
    encoder = base_encoder(network, heads, name, run)
    tensors = own_tensors(heads, encoder)
    shared_layers(tensors, encoder.num_layers)
    with _new_folder(output) as staging:
        save_tensors(staging, tensors)
        values = part_config(heads.config, name, values_digest(network))
        write_text(staging / "config.json", json.dumps(values, indent=2, sort_keys=True, default=str) + "\n")
        forget_places(staging)
        save_sides(staging, loaded.ctc_units, loaded.trained_on)
        write_card(
            staging,
            output.name,
            f"CTC heads on the encoder of `{name}`, which is not in this folder: it is looked for on this machine and "
            "on the hub.\n\n```\nkikitori transcribe talk.flac --model THIS_FOLDER\n```",
            language=loaded.trained_on.language,
            base_models=[name],
            relation="finetune",
        )
        if Path(model_folder(run)).is_dir():
            copy_search_files(Path(model_folder(run)), staging)


def convert_speech_llm(run: str | Path, encoder: str, llm: str, output: Path) -> None:
    """Writes what a run has added to a Whisper's encoder and an LLM as a part that names both.

    Args:
        run: A speech LLM whose LLM learnt by LoRA, and whose encoder was trained in its last layers or not at all.
        encoder: Hub id of the Whisper; see `kikitori.model.published.part.find_base` for where it is looked up.
        llm: Hub id of the LLM, looked up alike.
        output: Folder to write; it must not exist, or be empty.

    Raises:
        ModelError: The run is no such model, or the output is not empty or cannot be written.
    """
    _refuse_existing(output)
    folder = Path(model_folder(run))
    loaded = load_model(folder)
    model = loaded.model.speech_llm
    if model is None or not (folder / ADAPTER).is_dir():
        what = "it is no run of a speech LLM whose LLM learnt by LoRA"
        raise ModelError(what, where=run, remedy="train with task speech_llm and llm.policy lora")
    with _new_folder(output) as staging:
        save_speech_llm_part(staging, model, folder / ADAPTER, encoder, llm, load_llm)
        forget_places(staging)
        save_sides(staging, loaded.units, loaded.trained_on)
        if loaded.own_ctc_units is not None:
            loaded.own_ctc_units.save(staging / CTC_UNITS)
        write_card(
            staging,
            output.name,
            f"A speech LLM: the encoder of `{encoder}` and `{llm}`, joined by a bridge and LoRA. The two are not in "
            "this folder: they are looked for on this machine and on the hub.\n\n```\nkikitori transcribe talk.flac "
            "--model THIS_FOLDER\n```",
            language=loaded.trained_on.language,
            base_models=[encoder, llm],
            relation="adapter",
        )
        copy_search_files(folder, staging)


def convert_decoder(run: str | Path, folder: Path) -> Path:
    """Puts a trained speech LLM into the folder of the recogniser on whose encoder and heads it was trained.

    Args:
        run: A speech LLM whose encoder and heads started from the recogniser and were left as they are, or its run.
        folder: Of the recogniser.

    Returns:
        The folder of the speech LLM, `speech_llm/` in that of the recogniser.

    Raises:
        ModelError: The run is no such model, a number is too large for float16, there is a second decoder already, or
            the folder cannot be written.
    """
    output = folder / SPEECH_LLM
    if output.exists():
        raise ModelError("is there already", where=output, remedy="remove it first")
    source = Path(model_folder(run))
    loaded, around = load_model(source), load_model(folder)
    model = loaded.model.speech_llm
    if model is None:
        raise ModelError("it is no speech LLM", where=run, remedy="train with task speech_llm")
    if around.model.speech_llm is not None:
        raise ModelError("it is a speech LLM itself", where=folder, remedy="name the recogniser that it started from")
    llm = merged_copy(model.llm).half()
    if wrong := [name for name, weight in llm.state_dict().items() if not weight.isfinite().all()]:
        raise ModelError(f"llm.{wrong[0]} is too large for float16", where=run, remedy="train with weight decay")
    with _new_folder(output) as staging:
        save_second_decoder(staging, model, around.model.acoustic, run)
        save_network(staging / LLM, llm)
        forget_places(staging)
        save_sides(staging, loaded.units, loaded.trained_on)
        copy_search_files(source, staging)
        if not (staging / DECODING).exists():
            write_text(staging / DECODING, f"search: {'joint' if model.acoustic.config.ctc_layers else 'greedy'}\n")
        write_card(
            staging,
            f"{folder.resolve().name}/{output.name}",
            "A speech LLM on the encoder and heads of the recogniser around this folder: a bridge and an LLM, which "
            "writes what it reads of the speech.\n\n```\nkikitori transcribe talk.flac --model FOLDER_AROUND "
            "--decoder speech_llm\n```",
            language=loaded.trained_on.language,
        )
    return output


def convert_llm(model: str | Path, output: Path, adapter: str | Path | None = None) -> None:
    """Writes the LLM of a speech LLM, adapters merged, as a folder of transformers, which vLLM too loads as it is.

    Args:
        model: A recogniser with an LLM that reads the speech as a part of its input, or its run.
        output: Folder to write; it must not exist, or be empty.
        adapter: Folder of an adapter that `kikitori adapt` made for the recogniser.

    Raises:
        ModelError: There is no such LLM, or the output is not empty or cannot be written.
    """
    _refuse_existing(output)
    folder = model_folder(model)
    loaded = load_model(folder)
    if adapter is not None:
        loaded = load_adapter(loaded, folder, adapter)
    network = loaded.model.speech_llm
    if network is None or network.config.interface != "prefix":
        what = "it has no LLM that reads the speech as a part of its input"
        raise ModelError(what, where=model, remedy="name a speech LLM with interface: prefix")
    with _new_folder(output) as staging:
        save_network(staging, merged_copy(network.llm))
        loaded.units.save(staging)
        GenerationConfig(eos_token_id=network.config.eos_id).save_pretrained(staging)


def convert_nue_asr(
    source: str | Path, output: Path, log: Callable[[str], None], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes the published model of paper A (a folder, or the hub id) as a model folder that is not there yet.

    No more than one shard of at most so many bytes is in memory at a time. The folder is there when it is complete, or
    not at all. The log gets a line for each pickled file that is read.

    Raises:
        ModelError: The source does not fit, or the output is not empty or cannot be written.
    """
    _refuse_existing(output)
    published = open_published(source, pickle_log=log)
    with _new_folder(output) as staging:
        _write(staging, published, source, shard_bytes)


def _refuse_existing(output: Path) -> None:
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError("is there already", where=output, remedy="name a new folder")


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """A folder to fill that becomes the output when it is complete."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replace_folder(output) as staging:
            yield staging
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ModelError(
            f"cannot be written ({reason})", where=output, remedy="check the path and the free space"
        ) from None


def _write(folder: Path, published: Published, source: str | Path, shard_bytes: int) -> None:
    dtype = str(next(iter(published.tensors.values())).dtype).removeprefix("torch.")
    config = published.config
    name = Path(source).resolve().name if Path(source).is_dir() else source  # a folder of this machine, or of the hub
    config.architectures, config.dtype = [SpeechLLM.__name__], dtype
    config.save_pretrained(folder)
    forget_places(folder)
    save_sides(folder, published.units, TRAINED_ON)
    write_text(folder / DECODING, "search: greedy\n")
    write_text(folder / "README.md", CARD.format(source=name, dtype=dtype))
    write_safetensors(folder, published.tensors, source, shard_bytes=shard_bytes)
