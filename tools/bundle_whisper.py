"""Puts CTC heads and the Whisper that they stand on into one folder, which needs no other.

    python tools/bundle_whisper.py PART BASE TARGET

PART is a folder of `kikitori convert heads`; BASE a folder of CTranslate2 with the same Whisper in 8 bits per row,
as `ct2-transformers-converter --quantization int8` writes it. The part then names that base by its own digest, since
rounded weights are others. What else lies in TARGET, such as the card, is left alone.
"""

import json
import shutil
import sys
from pathlib import Path

from kikitori.io.model_folder import BASE
from kikitori.model.published.part import values_digest
from kikitori.model.published.whisper import load_whisper
from kikitori.model.safety.config import read_json


def main(part: Path, base: Path, target: Path) -> None:
    config = read_json(part, "config.json")
    inside = target / config[BASE]["name"].rpartition("/")[2]
    for source, folder in ((part, target), (base, inside)):
        folder.mkdir(parents=True, exist_ok=True)
        for file in sorted(each for each in source.iterdir() if each.is_file()):
            shutil.copy(file, folder)
    config[BASE]["digest"] = values_digest(load_whisper(inside, read_json(inside, "config.json")))
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    for path in sorted(file for file in target.rglob("*") if file.is_file()):
        print(f"{path.stat().st_size / 1e6:8.3f} MB  {path.relative_to(target)}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python tools/bundle_whisper.py PART BASE TARGET")
    main(*map(Path, sys.argv[1:]))
