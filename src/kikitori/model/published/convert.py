"""Published models in other layouts become model folders of ours, shard by shard, in the type they have on disk."""

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from kikitori.errors import ModelError
from kikitori.io.files import replace_folder, write_text
from kikitori.io.model_folder import DECODING
from kikitori.model.folder import forget_places, save_sides
from kikitori.model.published.nue_asr import TRAINED_ON, Published, open_published
from kikitori.model.speech_llm import SpeechLLM
from kikitori.model.weights import SHARD_BYTES, write_safetensors

CARD = """---
license: apache-2.0
language: ja
library_name: kikitori
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


def convert_nue_asr(
    source: str | Path, output: Path, log: Callable[[str], None], *, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes the published model of paper A as a model folder.

    No more than one shard is in memory at a time. The folder is there when it is complete, or not at all.

    Args:
        source: Folder in the layout of `rinna/nue-asr`, or that hub id.
        output: Folder to write; it must not exist, or be empty.
        log: Gets a line for each pickled file that is read.
        shard_bytes: Largest size of a file of weights.

    Raises:
        ModelError: The source does not fit, or the output is not empty or cannot be written.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ModelError("is there already", where=output, remedy="name a new folder")
    published = open_published(source, pickle_log=log)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replace_folder(output) as staging:
            _write(staging, published, source, shard_bytes)
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
