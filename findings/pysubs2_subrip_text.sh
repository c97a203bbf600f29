#!/usr/bin/env bash
# pysubs2 1.8.1, subtitles: SubRip whose text has braces ("the set {1, 2}") or a backslash before a capital N, neither of which
# means anything in SubRip. Expected: SubRip that is read and written again is the same.
# What happens: no error and no warning; what stands in braces is gone, and the backslash and the N have become a line break,
# as they would in SubStation Alpha, which is what the library works in. So do all that read transcripts with it.
# Output seen: 'the set  ends' 'under C:\notes', where \n is a line break
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install pysubs2==1.8.1
"$folder/venv/bin/python" - <<'PYTHON'
import pysubs2


def again(text):
    """The text of a cue after reading and writing SubRip."""
    read = pysubs2.SSAFile.from_string(f"1\n00:00:00,000 --> 00:00:01,000\n{text}\n", format_="srt")
    return read.to_string("srt").split("\n", 2)[2].strip()


braces, path = again("the set {1, 2} ends"), again("under C:\\Notes")
print(repr(braces), repr(path))
assert again("plain text") == "plain text"
assert braces == "the set  ends", "the behaviour has changed"
assert path == "under C:\notes", "the behaviour has changed"
PYTHON
