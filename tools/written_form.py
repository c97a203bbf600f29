"""Gives transcripts in capitals case and punctuation, from what a recogniser wrote of the same speech.

    kikitori evaluate --model src/kikitori/models/tiny-en --decoding greedy --data MANIFEST --split train -o heard
    python tools/written_form.py MANIFEST -o written.jsonl [--split train] [--predictions heard/predictions.jsonl]

Words stay those of the transcript. Where the recogniser wrote the same word, its form is taken, with the punctuation
around it; other words are in lower case ("I" aside). Without predictions, or where no word was the same, the text
is written as one sentence. Audio paths of the new manifest are absolute.
"""

import argparse
import json
import re
from pathlib import Path

from kikitori.data.manifest import write_manifest
from kikitori.scoring.metrics import align_words

_FIRST_PERSON = re.compile(r"i('\w+)?")


def written(transcript: str, heard: str) -> str:
    """The words of a transcript in the form of the text that was heard, as far as it has them."""
    forms = heard.split()
    by_word = [_plain(form) for form in forms]
    places = [index for index, word in enumerate(by_word) if word]  # a dash on its own is no word
    pairs = align_words(" ".join(_plain(word) for word in transcript.split()), " ".join(by_word[i] for i in places))
    result, position = [], 0
    for reference, prediction in pairs:
        same = reference == prediction
        if reference is not None:
            result.append(forms[places[position]] if same else _lower(reference))
        position += prediction is not None
    if not result:
        return ""
    text = " ".join(result)
    return text[0].upper() + text[1:] + ("" if text[-1] in ".!?,;:—" else ".")


def _plain(word: str) -> str:
    return re.sub(r"[^\w']", "", word.lower()).strip("'")


def _lower(word: str) -> str:
    return word.capitalize() if _FIRST_PERSON.fullmatch(word) else word


def main() -> None:
    """Reads a manifest and predictions, and writes the manifest again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("-o", dest="output", type=Path, required=True)
    parser.add_argument("--split")
    parser.add_argument("--predictions", type=Path)
    arguments = parser.parse_args()
    folder = arguments.manifest.resolve().parent
    heard = {}
    if arguments.predictions is not None:
        for line in arguments.predictions.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            heard[folder / row["audio_filepath"]] = row["pred_text"]
    rows = []
    for line in arguments.manifest.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if arguments.split not in (None, row.get("split")):
            continue
        audio = folder / row["audio_filepath"]
        rows.append(row | {"audio_filepath": str(audio), "text": written(row["text"], heard.get(audio, ""))})
    write_manifest(arguments.output, rows)


if __name__ == "__main__":
    main()
