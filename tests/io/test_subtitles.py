"""Subtitles: times rise strictly, no cue is empty, and no text breaks a file."""

import re
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ConfigError
from kikitori.io.subtitles import CueOptions, cues, srt, tsv, vtt
from kikitori.types import Segment, Transcript, Word

SPOKEN = "He was in a fevered state of mind. Owing to the blight his wife's action threatened"
TIMES = [(0.5 + 0.3 * n, 0.7 + 0.3 * n) for n in range(len(SPOKEN.split()))]
WORDS = tuple(Word(word, *span) for word, span in zip(SPOKEN.split(), TIMES, strict=True))
TRANSCRIPT = Transcript(SPOKEN, (Segment(0.5, WORDS[-1].end, SPOKEN, WORDS),), words=WORDS, duration=6.0)


def read_srt(content: str) -> list[tuple[str, str, list[str]]]:
    """Start, end and lines of each cue, as strict readers find them."""
    found = []
    for number, block in enumerate(content.rstrip("\n").split("\n\n") if content else (), 1):
        count, times, *lines = block.split("\n")
        assert count == str(number)
        match = re.fullmatch(r"(\d\d+:\d\d:\d\d,\d{3}) --> (\d\d+:\d\d:\d\d,\d{3})", times)
        assert match is not None
        assert lines
        assert all(line.strip() for line in lines)
        assert not any("-->" in line for line in lines)
        found.append((match[1], match[2], lines))
    return found


def seconds(time: str) -> float:
    hours, minutes, rest = time.replace(",", ".").split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(rest)


def test_srt_breaks_at_the_end_of_a_sentence_and_of_the_line():
    found = read_srt(srt(TRANSCRIPT, CueOptions(max_line_width=26)))
    assert found == [
        ("00:00:00,500", "00:00:02,800", ["He was in a fevered state", "of mind."]),
        ("00:00:02,900", "00:00:05,200", ["Owing to the blight his", "wife's action threatened"]),
    ]


def test_vtt():
    content = vtt(Transcript("", (Segment(3661.5, 3663.0, "R&D <b> --> x"),), duration=4000.0), CueOptions())
    assert content == "WEBVTT\n\n01:01:01.500 --> 01:01:03.000\nR&amp;D &lt;b&gt; --&gt; x\n"
    assert vtt(Transcript(""), CueOptions()) == "WEBVTT\n"
    assert srt(Transcript(""), CueOptions()) == ""


def test_tsv_has_milliseconds():
    transcript = Transcript("", (Segment(0.0, 1.2346, "a\tb\n c"), Segment(1.2, 1.2, " "), Segment(1.2, 1.3, "d")))
    assert tsv(transcript) == "start\tend\ttext\n0\t1235\ta b c\n1235\t1300\td\n"


def test_words_are_highlighted_while_they_are_said():
    words = (Word("a", 0.0, 0.2), Word("b", 0.5, 0.9))
    found = read_srt(srt(Transcript("a b", (Segment(0.0, 0.9, "a b", words),), duration=2.0), CueOptions(42, 2, True)))
    assert [(seconds(start), seconds(end), lines) for start, end, lines in found] == [
        (0.0, 0.2, ["<u>a</u> b"]),
        (0.2, 0.5, ["a b"]),
        (0.5, 0.9, ["a <u>b</u>"]),
        (0.9, 1.0, ["a b"]),
    ]


def test_a_pause_ends_a_cue_and_a_short_cue_stays_a_second():
    words = (Word("yes", 1.0, 1.2), Word("no", 4.0, 4.1))
    found = cues(Transcript("yes no", (Segment(1.0, 4.1, "yes no", words),), duration=4.5), CueOptions())
    assert [(cue.start, cue.end) for cue in found] == [(1000, 2000), (4000, 4500)]


def test_without_times_of_words_the_characters_share_the_time():
    text = "aaaa bbbb cccc dddd"
    found = cues(Transcript(text, (Segment(10.0, 14.0, text),), duration=20.0), CueOptions(9, 1))
    assert [cue.start for cue in found] == [10000, 11894]
    assert found[-1].end == 14000


def test_wide_characters_count_twice_and_break_anywhere():
    text = "聞き取りは難しいものです"
    found = cues(Transcript(text, (Segment(0.0, 3.0, text),), duration=3.0), CueOptions(10, 1))
    assert ["".join(token.text for line in cue.lines for token in line) for cue in found] == [
        "聞き取りは",
        "難しいもの",
        "です",
    ]
    timed = tuple(Word(character, n / 4, (n + 1) / 4) for n, character in enumerate(text))
    found = cues(Transcript(text, (Segment(0.0, 3.0, text, timed),), duration=3.0), CueOptions(10, 2))
    assert ["".join(token.text for token in line) for cue in found for line in cue.lines] == [
        "聞き取りは",
        "難しいもの",
        "です",
    ]


def test_options_are_checked():
    with pytest.raises(ConfigError, match="max_line_count is 0"):
        CueOptions(max_line_count=0)


TEXTS = st.text(st.sampled_from("ab é聞1,.?!->&<\n\t\x00\u2028 -"), max_size=40)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(TEXTS, st.floats(0.0, 30.0), st.floats(-0.1, 3.0), st.booleans()), max_size=5),
    st.integers(1, 30),
    st.integers(1, 3),
    st.booleans(),
)
def test_whatever_the_segments_files_can_be_read(rows, width, count, highlight):
    segments = []
    for text, start, length, timed in rows:
        each = length / max(len(text.split()), 1)
        words = tuple(Word(word, start + n * each, start + (n + 1) * each) for n, word in enumerate(text.split()))
        segments.append(Segment(start, start + length, text, words if timed else ()))
    transcript = Transcript(" ".join(row[0] for row in rows), tuple(segments), duration=40.0)
    options = CueOptions(width, count, highlight)
    found = read_srt(srt(transcript, options))
    times = [seconds(time) for start, end, _ in found for time in (start, end)]
    assert all(a < b for a, b in zip(times[::2], times[1::2], strict=True))
    assert all(a <= b for a, b in pairwise(times))
    assert all(a < b for a, b in pairwise(times[::2]))
    assert all(len(lines) <= count for _, _, lines in found)
    if not highlight:
        shown = "".join("".join(lines) for _, _, lines in found)
        said = "".join(segment.text for segment in segments)
        squeezed = re.sub("-{2,}>", "->", re.sub(r"[\s\x00-\x1f]", "", said))
        assert re.sub(r"[\s-]", "", shown) == re.sub("-", "", squeezed)
    blocks = vtt(transcript, options).split("\n\n")
    assert blocks[0].strip() == "WEBVTT"
    assert len(blocks) == len(found) + 1
    assert all(block.count("-->") == 1 for block in blocks[1:])
    assert tsv(transcript).count("\t") == 2 * tsv(transcript).count("\n")
