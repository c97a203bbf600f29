"""`--model hf:...` and `--model ct2:...`: recognisers that other software runs, with the options that they take."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from kikitori.cli.common import Device, Precision, warnings_as_lines
from kikitori.errors import ConfigError

if TYPE_CHECKING:
    from kikitori.baselines.base import Baseline

AnyModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Model folder or hub id; the bundled tiny-en by default. hf:ID_OR_FOLDER is run by transformers, "
        "ct2:FOLDER by faster-whisper.",
    ),
]


def baseline_of(
    model: str | None, device: Device, dtype: Precision, language: str | None, ours: Mapping[str, bool]
) -> "Baseline | None":
    """The baseline that `--model` names; None where it names a recogniser of ours.

    Args:
        model: What `--model` says.
        device: Where to compute.
        dtype: Arithmetic of the networks.
        language: Of all recordings.
        ours: Which options were given that our recognisers alone take, by their names.

    Raises:
        ConfigError: Such an option was given.
        ModelError: The model cannot be loaded.
    """
    from kikitori.loading import BASELINES

    if model is None or not model.startswith(BASELINES):
        return None
    for option, given in ours.items():
        if given:
            raise ConfigError("recognisers of other software take none", where=option, remedy="leave it out")
    from kikitori.baselines.load import load_baseline

    with warnings_as_lines():
        return load_baseline(model, device=device.value, dtype=dtype.value, language=language)
