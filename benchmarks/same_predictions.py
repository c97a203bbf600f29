"""Do two checkouts find the same? Every search on the same recordings, compared hypothesis by hypothesis.

    python benchmarks/same_predictions.py OLD_CHECKOUT NEW_CHECKOUT --data dev.jsonl --rows 40

Each checkout runs in a process of its own with mini-en, once for each search below, whose options are written
in the spelling that older versions read too. Texts and their order must be equal, scores within 1e-4. A checkout's
results are kept in --keep, so that only what is missing there is run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
PLACES = "models/mini-en", "src/kikitori/models/mini-en"
"""Where checkouts have the model."""
SEARCHES = {
    "ctc_greedy": "search: ctc_greedy",
    "ctc_beam": "search: ctc_beam",
    "ctc_beam_max": "{search: ctc_beam, recombine: max, beam: 8, score_beam: null, min_log_prob: null}",
    "ctc_beam_thinned": "{search: ctc_beam, vocabulary: 60, collapse: 0.95}",
    "shallow_fusion": "{search: shallow_fusion, llm_scale: 0.4, prior_scale: 0.3, length_scale: 0.5}",
    "delayed_fusion": "{search: delayed_fusion, llm_scale: 0.4, prior_scale: 0.3, length_scale: 0.5}",
    "delayed_fusion_word_end": "{search: delayed_fusion, llm_scale: 0.4, trigger: word_end, beam: 8}",
    "lexicon": None,  # the folder's own
    "lexicon_defaults": "{search: lexicon, ngram_scale: 0.8, length_scale: -0.5}",
    "rescoring": "{search: rescoring, lms: {lm: {path: MODEL/lm}}, priors: {prior: {path: MODEL/prior.safetensors}}, "
    "scales: {lm: 0.5, prior: -0.2, length: 0.3}}",
    "rescoring_speech_llm": "{search: rescoring, scales: {speech_llm: 0.6, ilm: -0.2, ctc: 0.4}}",
    "rescoring_lexicon": "{search: rescoring, first: {search: lexicon}, "
    "scales: {ngram: 0.8, speech_llm: 0.3, length: -0.2}}",
    "greedy": "search: greedy",
    "sampling": "{search: sampling, temperature: 0.8, top_k: 20, top_p: 0.9, seed: 7}",
    "beam": "search: beam",
    "beam_sum": "{search: beam, length_exponent: 0.0, length_scale: 0.4, score_beam: 12.0}",
    "joint": "search: joint",
    "joint_thinned": "{search: joint, ctc_scale: 0.5, vocabulary: 80, collapse: 0.95}",
    "joint_time_sync": "search: joint_time_sync",
    "speculative": "search: speculative",
    "speculative_ctc": "{search: speculative, draft: {search: ctc_greedy}}",
}
WORKER = """
import json, sys, time
import kikitori
model, searches, paths, out = json.load(sys.stdin)
recognizer = kikitori.load(model)
for name, search in searches.items():
    more = {} if search is None else {"decoding": search}
    begun = time.perf_counter()
    rows = [
        {"text": t.text, "nbest": [[h.text, h.score] for h in t.nbest]}
        for t in recognizer.transcribe_many(paths, batch_size=8, **more)
    ]
    with open(f"{out}/{name}.json", "w") as file:
        json.dump({"seconds": time.perf_counter() - begun, "rows": rows}, file)
    print(name, round(time.perf_counter() - begun, 1), flush=True)
"""


def record(checkout: Path, paths: list[str], out: Path, searches: list[str]) -> None:
    """Runs the searches whose results are not there yet."""
    out.mkdir(parents=True, exist_ok=True)
    model = next(str(checkout / place) for place in PLACES if (checkout / place).is_dir())
    missing: dict[str, str | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in searches:
            if not (out / f"{name}.json").exists():
                options = SEARCHES[name]
                missing[name] = None if options is None else f"{folder}/{name}.yaml"
                if options is not None:
                    Path(folder, f"{name}.yaml").write_text(options.replace("MODEL", model))
        if missing:
            job = json.dumps([model, missing, paths, str(out)])
            environment = {**os.environ, "PYTHONPATH": str(checkout / "src")}
            subprocess.run([sys.executable, "-c", WORKER], input=job, text=True, env=environment, check=True)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What is not the same, a line for each recording."""
    found = []
    for number, (a, b) in enumerate(zip(old["rows"], new["rows"], strict=True)):
        if a["text"] != b["text"]:
            found.append(f"row {number}: {a['text']!r} is now {b['text']!r}")
        elif [text for text, _ in a["nbest"]] != [text for text, _ in b["nbest"]]:
            found.append(f"row {number}: other n-best list")
        elif any(abs(x - y) > TOLERANCE for (_, x), (_, y) in zip(a["nbest"], b["nbest"], strict=True)):
            found.append(f"row {number}: scores differ")
    return found


def main() -> None:
    """Runs, compares, and exits with 1 where something differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs=2, type=Path)
    parser.add_argument("--data", type=Path, required=True, help="JSONL manifest")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--searches", nargs="*", default=list(SEARCHES))
    parser.add_argument("--keep", type=Path, help="folder of results")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.data.read_text().splitlines()]
    rows = [row for row in rows if row.get("split", args.split) == args.split][: args.rows]
    paths = [str((args.data.parent / row["audio_filepath"]).resolve()) for row in rows]
    samples = args.checkouts[0].resolve() / "src/kikitori/samples"
    paths += sorted(str(path) for path in samples.glob("*.opus"))
    keep = args.keep or Path(tempfile.mkdtemp())
    folders = [keep / name for name in ("old", "new")]
    for checkout, folder in zip(args.checkouts, folders, strict=True):
        record(checkout.resolve(), paths, folder, args.searches)
    bad = 0
    for name in args.searches:
        old, new = (json.loads((folder / f"{name}.json").read_text()) for folder in folders)
        found = differences(old, new)
        bad += bool(found)
        print(f"{name:24}", f"{len(found)} of {len(old['rows'])} differ" if found else "equal")
        print("".join(f"    {line}\n" for line in found[:3]), end="")
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
