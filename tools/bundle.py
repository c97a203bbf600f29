"""Puts a trained recogniser into the package as a bundled model, in half precision.

    python tools/bundle.py runs/mini-en/model src/kikitori/models/mini-en

Weights are stored in float16 and computed in float32. The model card (README.md) of the target folder is left alone.
"""

import sys
from pathlib import Path

from kikitori.model.folder import load_model, save_model

DECODING = "# Default search of this model.\nsearch: greedy\n"


def main(source: Path, target: Path) -> None:
    loaded = load_model(source)
    save_model(target, loaded.model.half(), loaded.units, loaded.trained_on)
    (target / "decoding.yaml").write_text(DECODING, encoding="utf-8")
    for path in sorted(target.iterdir()):
        print(f"{path.stat().st_size / 1e6:8.3f} MB  {path.name}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python tools/bundle.py RUN/model TARGET")
    main(Path(sys.argv[1]), Path(sys.argv[2]))
