"""The mean of the weights of runs that went on from the same model, as a run of its own.

    python tools/average.py runs/a runs/b -o runs/mean

Two ways on from one model, such as with other training data, end in weights whose mean is often better than either
(Wortsman et al. 2022, "Model soups"). Runs that started apart have no such mean.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from kikitori.errors import KikitoriError, ModelError
from kikitori.io.model_folder import model_folder
from kikitori.model.folder import load_model, save_model
from kikitori.train.loop.state import copy_into, mean, weights


@torch.no_grad()
def average(sources: Sequence[Path], target: Path) -> None:
    """Writes the mean of runs into `target/model`.

    Raises:
        ModelError: One of them cannot be loaded, or they are not models of one shape.
    """
    first, *others = [load_model(model_folder(source)) for source in sources]
    parts = [weights(loaded.model) for loaded in (first, *others)]
    for source, part in zip(sources, parts, strict=True):
        if {name: each.shape for name, each in part.items()} != {name: each.shape for name, each in parts[0].items()}:
            raise ModelError(
                "it has another shape than the first one", where=source, remedy="average runs of one model"
            )
    if not isinstance(first.model, PreTrainedModel):
        raise ModelError("a Whisper is not averaged", where=sources[0], remedy="average runs of kikitori train")
    copy_into(parts[0], mean([{name: each.clone() for name, each in part.items()} for part in parts]))
    save_model(target / "model", first.model, first.units, first.trained_on)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", required=True, type=Path)
    arguments = parser.parse_args()
    try:
        average(arguments.runs, arguments.output)
    except KikitoriError as error:
        sys.exit(f"average.py: {error}")
