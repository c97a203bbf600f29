"""Puts a trained recogniser into `models/`, in half precision.

    python tools/bundle.py runs/mini-en/model models/mini-en

Weights are stored in float16 and computed in float32. What else lies in the target folder, such as the model card, the
default search and the files that it needs, is left alone.
"""

import sys
from pathlib import Path

from transformers import PreTrainedModel

from kikitori.model.folder import load_model, save_model


def main(source: Path, target: Path) -> None:
    loaded = load_model(source)
    if not isinstance(loaded.model, PreTrainedModel):
        sys.exit(f"{source} is a Whisper: use tools/bundle_whisper.py")
    network = loaded.model.half()  # type: ignore[no-untyped-call]
    save_model(target, network, loaded.units, loaded.trained_on)
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.3f} MB  {path.name}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/bundle.py RUN/model TARGET")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
