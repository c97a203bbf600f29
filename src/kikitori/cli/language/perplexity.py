"""`kikitori perplexity`: how well a language model predicts texts."""

from typing import Annotated

import typer

from kikitori.cli import common
from kikitori.errors import ConfigError
from kikitori.io.progress import progress_bar


def perplexity(
    model: Annotated[str | None, typer.Option("--model", help="Language model, or that of a speech LLM.")] = None,
    text: common.Text = None,
    data: common.Data = None,
    split: common.Split = None,
    text_form: common.TextFormOption = common.TextForm.own,
    max_lines: common.MaxLines = 0,
    device: common.DeviceOption = common.Device.auto,
) -> None:
    """Perplexity of a language model on text: per token, per word and per character."""
    with common.one_line_errors():
        if model is None:
            raise ConfigError("no language model given", where="--model", remedy="name its folder")
        if not text and not data:
            raise ConfigError("no text given", where="--text", remedy="name at least one file")
        from kikitori.data.manifest import read_manifest
        from kikitori.model.device import torch_device
        from kikitori.scorers.language_model import load_language_model
        from kikitori.scorers.options import LMOptions
        from kikitori.scoring.perplexity import format_perplexity
        from kikitori.scoring.perplexity import perplexity as measure
        from kikitori.text.corpus import read_lines

        lines = [(f"{path}", line) for path in text or () for line in read_lines(path, max_lines=max_lines)]
        for path in data or ():
            rows = read_manifest(path, split=split).utterances
            lines += [(f"{path}: {row.utt_id}", row.text) for row in rows if row.text]
        with common.warnings_as_lines():
            lm = load_language_model(LMOptions(model, text_form.value), torch_device(device.value))
        with progress_bar("scoring", len(lines)) as progress:
            found = measure(lm, lines, progress)
        print(format_perplexity(found), flush=True)
