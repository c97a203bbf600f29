"""Whether an ARPA file means to us what it means to KenLM, whichever tool wrote it.

    pip install kenlm                        # its Python reader, built from source; nothing else here needs it
    python benchmarks/arpa_readers.py [FILE ...]

N-grams of random sentences, of several orders, pruned and not, are written in the habits of each tool (the order of the
unigrams, blanks, special words, weights that are left out), and texts are scored with both readers, unknown words among
them. A line for each file; the exit status is 1 if scores differ by more than `TOLERANCE` or one reader alone refuses.
"""

import random
import sys
from collections.abc import Callable, Sequence
from math import log
from pathlib import Path
from tempfile import TemporaryDirectory

import kenlm

from kikitori.errors import ModelError
from kikitori.text.ngram.arpa import OTHER_SPELLINGS, UNKNOWN, write_arpa
from kikitori.text.ngram.kneser_ney import estimate
from kikitori.text.ngram.model import load_ngram, score_text

TOLERANCE = 2e-3
"""Of the log-probability of a text in nats; both readers keep float32."""
WORDS = (UNKNOWN, *(f"w{number}" for number in range(12)), "straße", "don't", "日本", "#")
ORDERS = (2, 3, 5)
Lines = list[str]


def blocks(text: str) -> list[Lines]:
    """The lines of an ARPA file of ours: the counts, then each order's n-grams without its heading."""
    return [block.split("\n")[1:] for block in text.removesuffix("\n\n\\end\\\n").split("\n\n")]


def joined(found: Sequence[Lines], *, head: str = "", counts: str = "ngram {}={}", end: str = "\n\\end\\\n") -> str:
    """A whole file of the n-grams of each order, under the tool's way to count them."""
    lines = [head + "\\data\\", *(counts.format(n, len(block)) for n, block in enumerate(found, start=1))]
    for n, block in enumerate(found, start=1):
        lines += ["", f"\\{n}-grams:", *block]
    return "\n".join(lines) + "\n" + end


def first(unigrams: Lines, *words: str) -> Lines:
    """Some unigrams before all others."""
    return sorted(unigrams, key=lambda line: (*words, line.split("\t")[1]).index(line.split("\t")[1]))


def without_zeros(lines: Lines) -> Lines:
    """Back-off weights of 0 left out."""
    return [line.removesuffix("\t0") for line in lines]


def srilm(found: list[Lines]) -> str:
    """A blank line first, `</s>` and `<s>` before the words in the order of bytes, <UNK>, no weights of 0."""
    unigrams = sorted((line.replace(UNKNOWN, "<UNK>") for line in found[0]), key=lambda line: line.split("\t")[1])
    return joined([first(unigrams, "</s>", "<s>"), *map(without_zeros, found[1:])], head="\n")


def lmplz(found: list[Lines]) -> str:
    """<unk>, <s> and </s> first, `<s>` certain."""
    unigrams = [line.replace("-99\t<s>", "0\t<s>") for line in first(found[0], UNKNOWN, "<s>", "</s>")]
    return joined([unigrams, *found[1:]])


def irstlm(found: list[Lines]) -> str:
    """Counts in a column, blanks for tabs within n-grams, weights in the highest order, `<unk>` last."""
    unigrams = [*(line for line in found[0] if UNKNOWN not in line), *(line for line in found[0] if UNKNOWN in line)]
    return joined([unigrams, *found[1:]], head="\n", counts="ngram  {}= {:10}", end="\\end\\\n")


def kaldi(found: list[Lines]) -> str:
    """<UNK> first, weights of 0 left out."""
    unigrams = [line.replace(UNKNOWN, "<UNK>") for line in first(found[0], UNKNOWN)]
    return joined([*map(without_zeros, [unigrams, *found[1:]])])


def opengrm(found: list[Lines]) -> str:
    """No unknown word, and five digits."""
    kept = [[_rounded(line) for line in block if UNKNOWN not in line] for block in found]
    return joined(kept)


def cmu(found: list[Lines]) -> str:
    """<UNK> first, lines of DOS; without its preface and blanks for tabs, which KenLM refuses."""
    text = joined([first(found[0], UNKNOWN), *found[1:]])
    return text.replace(UNKNOWN, "<UNK>").replace("\n", "\r\n")


def _rounded(line: str) -> str:
    log_prob, *rest = line.split("\t")
    return "\t".join([f"{float(log_prob):.5g}", *rest])


WRITERS: dict[str, Callable[[list[Lines]], str]] = {
    each.__name__: each for each in (joined, srilm, lmplz, irstlm, kaldi, opengrm, cmu)
}


def files(folder: Path) -> list[Path]:
    """N-grams of every order, pruned and not, in the habits of every writer."""
    numbers = random.Random(1)
    weights = [0, *(1 / place for place in range(1, len(WORDS)))]
    found = []
    for order in ORDERS:
        for prune in (0.0, 0.01):
            sentences = [numbers.choices(range(len(WORDS)), weights, k=numbers.randrange(1, 9)) for _ in range(300)]
            plain = folder / f"{order}-{prune:g}.arpa"
            write_arpa(plain, estimate(sentences, len(WORDS), order, prune=prune), WORDS)
            for name, write in WRITERS.items():
                found.append(folder / f"{name}-order{order}{'-pruned' * bool(prune)}.arpa")
                found[-1].write_bytes(write(blocks(plain.read_text(encoding="utf-8"))[1:]).encode())
    return found


def difference(file: Path) -> tuple[float, str]:
    """The largest difference between the readers over some texts in nats; else who refuses the file, and why."""
    refusals, theirs, ours = [], None, None
    settings = kenlm.Config()
    settings.show_progress = False
    try:
        theirs = kenlm.Model(str(file), settings)
    except OSError as error:
        refusals.append(f"KenLM: {str(error).splitlines()[0][-100:]}")
    try:
        ours = load_ngram(file)
    except ModelError as error:
        refusals.append(f"kikitori: {error}")
    if theirs is None or ours is None:
        return 0.0, "; ".join(refusals)
    special = {"<s>", "</s>", UNKNOWN, *sum(OTHER_SPELLINGS.values(), ())}
    words = [word for word in ours.words if word not in special]
    numbers = random.Random(2)
    texts = [[numbers.choice([*words, "unheard"]) for _ in range(numbers.randrange(9))] for _ in range(100)]
    return max(abs(theirs.score(" ".join(text)) * log(10) - score_text(ours, text)) for text in texts), ""


def main(named: Sequence[str]) -> int:
    """Compares named files, or those of every tool."""
    worst, alone = 0.0, 0
    with TemporaryDirectory() as folder:
        found = [*map(Path, named)] or files(Path(folder))
        for file in found:
            off, refused = difference(file)
            worst, alone = max(worst, off), alone + (bool(refused) and "; " not in refused)
            print(f"{file.name}: {refused or f'{off:.1g}'}")
    print(f"{len(found)} files, {alone} refused by one reader alone, largest difference {worst:.2g} nats")
    return int(worst > TOLERANCE or bool(alone))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
