"""The table of attacks."""

import sys
from pathlib import Path

from tests.hostile import ATTACKS, open_all


def main() -> None:
    words = sys.argv[2:] or [""]
    outcomes = open_all([one for one in ATTACKS if any(word in one.name for word in words)], Path(sys.argv[1]))
    for one in outcomes:
        marks = ["ok" if one.repelled else "OPEN", *["RAN CODE"] * one.ran_code, *["LEAKED"] * one.leaked]
        cost = f"{one.seconds:.2f} s {one.megabytes:.0f} MB"
        print(*marks, cost, f"{one.name}: {one.error or 'loaded'}", *one.opened)
        print("    ", one.message[:200])
    print(sum(one.repelled for one in outcomes), "of", len(outcomes))


if __name__ == "__main__":
    main()
