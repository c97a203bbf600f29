"""`kikitori convert ...`: a model folder from a published model in another layout."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from kikitori.cli.common import Adapter, Folder, folder_for, one_line_errors, warnings_as_lines


def nue_asr(
    source: Annotated[str, typer.Argument(help="Folder in the layout of rinna/nue-asr, or that hub id.")],
    output: Folder = None,
) -> None:
    """Convert rinna/nue-asr; its pickled weights are read too, as tensors alone."""
    with one_line_errors():
        output = folder_for("the model", output)
        from kikitori.model.published import convert as conversion

        conversion.convert_nue_asr(source, output, lambda line: print(f"kikitori: {line}", file=sys.stderr))
        print(output)


def heads(
    run: Annotated[str, typer.Argument(help="Run or folder of CTC heads trained on a Whisper's encoder.")],
    base: Annotated[str, typer.Argument(help="Hub id of that Whisper, such as openai/whisper-base.")],
    output: Folder = None,
) -> None:
    """Make a small folder of CTC heads that names its Whisper, and is used with that Whisper's decoder."""
    with one_line_errors():
        output = folder_for("the heads", output)
        from kikitori.model.published import convert as conversion

        conversion.convert_heads(run, base, output)
        print(output)


def speech_llm(
    run: Annotated[str, typer.Argument(help="Run or folder of a speech LLM whose LLM learnt by LoRA.")],
    encoder: Annotated[str, typer.Argument(help="Hub id of its Whisper, such as openai/whisper-base.")],
    llm: Annotated[str, typer.Argument(help="Hub id of its LLM.")],
    output: Folder = None,
) -> None:
    """Make a small folder of what a speech LLM has learnt, which names its Whisper and its LLM."""
    with one_line_errors():
        output = folder_for("the speech LLM", output)
        from kikitori.model.published import convert as conversion

        conversion.convert_speech_llm(run, encoder, llm, output)
        print(output)


def decoder(
    run: Annotated[str, typer.Argument(help="Run or folder of a speech LLM.")],
    model: Annotated[str, typer.Argument(help="Name or folder of the recogniser that its encoder and heads are of.")],
) -> None:
    """Put a speech LLM into the folder of the recogniser on which it was trained, as its second decoder."""
    with one_line_errors():
        from kikitori.loading import find_model
        from kikitori.model.published import convert as conversion

        print(conversion.convert_decoder(run, Path(find_model(model))))


def llm(
    model: Annotated[str, typer.Argument(help="Run or folder of a speech LLM, or its hub id.")],
    output: Folder = None,
    adapter: Adapter = None,
) -> None:
    """Make a folder of its LLM alone, adapters merged, which transformers and vLLM load as it is (docs/vllm.md)."""
    with one_line_errors(), warnings_as_lines():
        output = folder_for("the LLM", output)
        from kikitori.io.extras import require
        from kikitori.loading import find_model
        from kikitori.model.published import convert as conversion

        if adapter is not None:
            require("peft", "adapters need", where=adapter)
        conversion.convert_llm(find_model(model), output, adapter)
        print(output)


def ctranslate2(
    source: Annotated[Path, typer.Argument(help="Whisper folder of CTranslate2 or faster-whisper.")],
    output: Folder = None,
) -> None:
    """Convert a Whisper of CTranslate2 to the layout of transformers; such folders are also read as they are."""
    with one_line_errors():
        output = folder_for("the model", output)
        from kikitori.model.published import convert as conversion

        conversion.convert_ctranslate2(source, output, lambda line: print(f"kikitori: {line}", file=sys.stderr))
        print(output)
