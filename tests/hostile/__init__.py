"""Model folders made by an enemy, and a child process that opens them under watch.

    outcomes = open_all(ATTACKS, Path("/tmp/attacks"))
    print(sum(outcome.repelled for outcome in outcomes), "of", len(outcomes))

`python -m tests.hostile FOLDER [WORD ...]` prints a table of all attacks, or of those with a word in their name.
"""

from tests.hostile import adapter, decoding, places, published, settings, tokenizer, weights  # noqa: F401  (they fill ATTACKS)
from tests.hostile.attack import ATTACKS, Attack, good_folder
from tests.hostile.watch import Outcome, open_all

__all__ = ["ATTACKS", "Attack", "Outcome", "good_folder", "open_all"]
