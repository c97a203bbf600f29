#!/usr/bin/env bash
# pysubs2 1.8.1 and webvtt-py 0.6.0, subtitles: WebVTT writes "&" and "<" of a cue's text as "&amp;" and "&lt;" (W3C WebVTT,
# section 4.2.2), as browsers need it. Expected: reading gives "3 < 5 & more", and writing escapes it again.
# What happens: both hand the references over as text, so that SubRip made of it shows them to the viewer; and both write a
# plain "<" into WebVTT, after which a browser takes what follows for a tag and shows nothing of it.
# Output seen: pysubs2 ('3 &lt; 5 &amp; more', True, True) and webvtt-py the same: text read, in SubRip too, '<' as it is
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" -q install pysubs2==1.8.1 webvtt-py==0.6.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import pysubs2
import webvtt

CUE = "3 &lt; 5 &amp; more"
with open("given.vtt", "w") as file:
    file.write(f"WEBVTT\n\n00:00:01.000 --> 00:00:02.000\n{CUE}\n")

found = pysubs2.load("given.vtt")
own = pysubs2.SSAFile()
own.append(pysubs2.SSAEvent(start=0, end=1000, text="3 <5 & more"))
by_pysubs2 = found[0].plaintext, CUE in found.to_string("srt"), "3 <5 & more" in own.to_string("vtt")
print("pysubs2", by_pysubs2)

read = webvtt.read("given.vtt")
read.save_as_srt("made.srt")
other = webvtt.WebVTT()
other.captions.append(webvtt.Caption("00:00:00.000", "00:00:01.000", "3 <5 & more"))
with open("made.srt") as file:
    by_webvtt = read[0].text, CUE in file.read(), "3 <5 & more" in other.content
print("webvtt-py", by_webvtt)
assert by_pysubs2 == by_webvtt == (CUE, True, True), "the behaviour has changed"
PYTHON
