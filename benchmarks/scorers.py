"""Our error counts beside those of jiwer and of NIST's sclite, on random pairs of texts; and how fast reports are made.

    pip install jiwer; apt-get install sctk                # what is not there is left out
    python benchmarks/scorers.py [--jiwer 5000] [--sclite 1000] [--rows 10000]

jiwer must give the same WER and CER for every pair. sclite lets a substitution cost 4 and a deletion or insertion 3, so
it may count more errors where alignments tie, but never fewer. The exit status is 1 otherwise.
"""

import argparse
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from kikitori.io.nist.trn import write_trn
from kikitori.scoring.metrics import ErrorCounts, char_errors, word_errors
from kikitori.scoring.report import Prediction, build_report, write_report
from kikitori.types import Utterance

WORDS = ("the", "crow", "flew", "home", "and", "it", "said", "that", "a", "an", "of", "to", "straße", "日本", "don't")
SCLITE = Path("/usr/lib/sctk/bin/sclite")  # where Debian has it
Pair = tuple[str, str]


def random_pairs(count: int, seed: int = 0, longest: int = 30) -> list[Pair]:
    """References of at least a word, and what is left of them after up to as many edits."""
    rng = random.Random(seed)
    pairs = []
    for _ in range(count):
        said = [rng.choice(WORDS) for _ in range(rng.randint(1, longest))]
        written = list(said)
        for _ in range(rng.randint(0, len(said))):
            place = rng.randrange(len(written) + 1)
            match rng.randrange(3):
                case 0:
                    written[place : place + 1] = [rng.choice(WORDS)]
                case 1:
                    del written[place : place + 1]
                case _:
                    written.insert(place, rng.choice(WORDS))
        pairs.append((" ".join(said), " ".join(written)))
    return pairs


def jiwer_differences(pairs: Iterable[Pair]) -> list[Pair]:
    """Pairs whose WER or CER is another in jiwer; characters are compared without spaces, as ours are."""
    import jiwer

    def differs(said: str, written: str) -> bool:
        characters = said.replace(" ", ""), written.replace(" ", "")
        return (word_errors(said, written).rate, char_errors(said, written).rate) != (
            jiwer.wer(said, written),
            jiwer.cer(*characters),
        )

    return [pair for pair in pairs if differs(*pair)]


def sclite_counts(program: Path, pairs: Sequence[Pair], folder: Path) -> list[ErrorCounts]:
    """What sclite counts in each pair."""
    for name, side in (("ref", 0), ("hyp", 1)):
        write_trn(folder / f"{name}.trn", {f"s-{number:06}": pair[side] for number, pair in enumerate(pairs)})
    command = [str(program), "-r", "ref.trn", "trn", "-h", "hyp.trn", "trn", "-i", "rm", "-s", "-o", "pra", "stdout"]
    output = subprocess.run(command, cwd=folder, capture_output=True, check=True, encoding="utf-8", errors="replace")
    scores = r"id: \(s-(\d+)\)\nScores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)"
    found = {int(row[0]): [*map(int, row[1:])] for row in re.findall(scores, output.stdout)}
    return [ErrorCounts(s, d, i, c + s + d) for c, s, d, i in (found[number] for number in range(len(pairs)))]


def sclite_line(pairs: Sequence[Pair], theirs: Sequence[ErrorCounts]) -> tuple[str, bool]:
    """What to print, and whether it is as it must be."""
    ours = [word_errors(*pair) for pair in pairs]
    fewer = sum(their.errors < our.errors for our, their in zip(ours, theirs, strict=True))
    more = sum(their.errors > our.errors for our, their in zip(ours, theirs, strict=True))
    same = sum(their == our for our, their in zip(ours, theirs, strict=True))
    their, our = sum(theirs, ErrorCounts()), sum(ours, ErrorCounts())
    line = (
        f"sclite, {len(pairs)} pairs: {their.errors} errors, ours {our.errors}; more in {more} pairs, fewer in "
        f"{fewer}, the same substitutions, deletions and insertions in {same}"
    )
    return line, not fewer and their.reference_length == our.reference_length


def scoring_seconds(count: int) -> float:
    """Processor time to make and write a report of so many English utterances of 35 words, nearly all with errors."""
    rng = random.Random(1)
    letters = "abcdefghijklmnoprstuvwy"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(2, 8))) for _ in range(5000)] + ["one", "and", "it's"] * 50
    rows = []
    for number in range(count):
        said = rng.choices(vocabulary, k=35)
        written = [word if rng.random() > 0.1 else f"{word}x" for word in said]
        utterance = Utterance(Path("a.wav"), 12.0, " ".join(said), utt_id=str(number), language="en")
        rows.append(Prediction(utterance, " ".join(written), 0.1))
    build_report({"warm-up": rows[:10]}, normalizer=None, decoding="d", model="m", versions={})
    started = time.process_time()
    report = build_report({"test": rows}, normalizer=None, decoding="d", model="m", versions={})
    with TemporaryDirectory() as folder:
        write_report(Path(folder), report, {"test": rows})
    return time.process_time() - started


def main() -> int:
    """Prints a line for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jiwer", type=int, default=5000)
    parser.add_argument("--sclite", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    fine = True
    try:
        different = jiwer_differences(random_pairs(options.jiwer))
        print(f"jiwer, {options.jiwer} pairs: another WER or CER in {len(different)}")
        fine = not different
    except ModuleNotFoundError:
        print("jiwer is not installed")
    program = Path(shutil.which("sclite") or SCLITE)
    if program.is_file():
        pairs = random_pairs(options.sclite, seed=1)
        with TemporaryDirectory() as folder:
            line, right = sclite_line(pairs, sclite_counts(program, pairs, Path(folder)))
        print(line)
        fine = fine and right
    else:
        print("sclite is not installed")
    print(f"a report of {options.rows} utterances: {scoring_seconds(options.rows):.1f} s of one core")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
