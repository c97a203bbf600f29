#!/usr/bin/env bash
# tgt 1.5 (TextGrids of Praat, the usual format of phone and word alignments): a label of two lines, which Praat allows.
# Expected: what the library writes it can read. What happens: it writes the label as Praat does, and reading the same file
# raises IndexError; praatio 6.2.2 and textgrid 1.6.1 read it.
# Output seen: tgt IndexError('list index out of range'); praatio, textgrid [['two\nlines'], ['two\nlines']]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install tgt==1.5 praatio==6.2.2 textgrid==1.6.1 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import textgrid
import tgt
from praatio import textgrid as praatio

grid, tier = tgt.core.TextGrid(), tgt.core.IntervalTier(0, 1, "words")
tier.add_interval(tgt.core.Interval(0, 1, "two\nlines"))
grid.add_tier(tier)
tgt.io.write_to_file(grid, "labels.TextGrid", format="long")
try:
    found = [interval.text for interval in tgt.io.read_textgrid("labels.TextGrid").tiers[0]]
except IndexError as error:
    found = error
print("tgt", repr(found))
others = [
    [entry.label for entry in praatio.openTextgrid("labels.TextGrid", False).getTier("words").entries],
    [interval.mark for interval in textgrid.TextGrid.fromFile("labels.TextGrid")[0]],
]
print("praatio, textgrid", others)
assert others == [["two\nlines"], ["two\nlines"]]
assert isinstance(found, IndexError), "the behaviour has changed: it is read"
PYTHON
