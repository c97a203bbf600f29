"""Searches side by side: decodes a recogniser's dev and test splits by each, and writes the table of all.

OMP_NUM_THREADS=1 python benchmarks/decoding.py run ctc_greedy shallow_fusion ...
python benchmarks/decoding.py table ctc_greedy shallow_fusion ...

A search is named as for --decoding, or by its file in searches/. What is measured already is not measured
again. `--only dev` leaves test alone, as it should be while scales are chosen.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

FILES = Path("searches")
MANIFEST = "../shared/speech/librispeech_clean_5/manifest.jsonl"
SPLITS = ("dev", "test")


def run(search: str, split: str, model: str | None, out: Path, data: str) -> None:
    """One search on one split."""
    if (out / search / split / "report.json").is_file():
        return
    file = FILES / f"{search}.yaml"
    command = [sys.executable, "-m", "kikitori", "evaluate", "--data", data, "--split", split, "--on-no-speech", "keep"]
    command += ["--decoding", str(file) if file.is_file() else search, "-o", str(out / search / split)]
    command += [] if model is None else ["--model", model]
    print("$", *command, flush=True)
    subprocess.run(command, check=True)


def table(searches: list[str], splits: list[str], out: Path) -> None:
    """Word error rates with their intervals, speed, and passes of the LLM for each utterance."""
    print(f"| search | {' | '.join(f'WER {split} (95 %)' for split in splits)} | CER | RTFx | LLM passes |")
    print(f"| --- |{' --- |' * (len(splits) + 3)}")
    for search in searches:
        reports = [json.loads((out / search / split / "report.json").read_text()) for split in splits]
        rates = [f"{r['wer']:.3f} ({r['wer_ci'][0]:.3f}-{r['wer_ci'][1]:.3f})" for r in reports]
        last = reports[-1]
        passes = last["llm_passes"] / last["utterances"]
        print(f"| `{search}` | {' | '.join(rates)} | {last['cer']:.3f} | {last['rtfx']:.0f} | {passes:.1f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("searches", nargs="+")
    parser.add_argument("--model", default="mini-en")
    parser.add_argument("--only", choices=SPLITS, help="one split")
    parser.add_argument("--data", default=MANIFEST)
    parser.add_argument("--out", type=Path, default=Path("runs/decoding"))
    given = parser.parse_args()
    chosen = [given.only] if given.only else [*SPLITS]
    if given.what == "run":
        for name in given.searches:
            for part in chosen:
                run(name, part, given.model, given.out, given.data)
    else:
        table(given.searches, chosen, given.out)
