"""A manifest whose text is the readings of another one, in kana as they sound, for training on real speech.

    python tools/kana_manifest.py wanikani_words_ja/manifest.jsonl -o runs/ja/real/manifest.jsonl [--split train]

What was the text becomes `written`, as `kikitori data synthesize --in-kana` has it; rows without reading are left out.
"""

import argparse
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from kikitori.data.manifest import BYTES, read_manifest, write_manifest
from kikitori.text.forms.japanese import spoken_kana


def kana_rows(manifest: Path, folder: Path, splits: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """The rows of a manifest for one in `folder`; of some splits alone, if any are named."""
    for row in read_manifest(manifest).utterances:
        kana = spoken_kana(str(row.extra.get("reading") or ""))
        if kana and (not splits or row.split in splits):
            yield {
                "audio_filepath": os.path.relpath(row.audio_filepath, folder),
                "duration": row.duration,
                "offset": row.offset,
                BYTES: row.byte_range,
                "text": kana,
                "written": row.text,
                "speaker": row.speaker,
                "language": row.language,
                "split": row.split,
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--split", action="append", default=[])
    options = parser.parse_args()

    folder = options.output.resolve().parent
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*kana_rows(options.manifest.resolve(), folder, options.split)]
    write_manifest(options.output, rows)
    print(f"{len(rows)} rows")


if __name__ == "__main__":
    main()
