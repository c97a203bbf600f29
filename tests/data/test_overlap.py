import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.data import overlap
from kikitori.data.manifest import write_manifest
from kikitori.data.overlap import RUN_WORDS, held_out, read_held_out
from kikitori.errors import DataError

TRANSCRIPT = "HE DID NOT SEE MISTER CROW COME BACK TO-DAY"


@pytest.mark.parametrize(
    "text",
    [
        "“Why? He did not see Mr. Crow!”",
        "see mister crow, come back today",
        "SEE MISTER CROW COME BACK TO DAY",
        "Then he díd not—see mister  Crow",
    ],
)
def test_six_words_in_a_row_are_shared(text):
    assert held_out([TRANSCRIPT]).shares(text)


@pytest.mark.parametrize("text", ["he did not see mister", "He did not see old mister crow come back again", "", "?!"])
def test_five_are_not(text):
    assert not held_out([TRANSCRIPT]).shares(text)


def test_a_short_transcript_is_shared_as_a_whole():
    kept = held_out(["We don't mind", "", "..."])
    assert kept.shares("We don’t mind.")
    assert not kept.shares("We don't mind that")
    assert not kept.shares("")


def test_characters_count_where_there_are_no_spaces():
    kept = held_out(["今日はとても良い天気ですから、散歩に行きましょう。"])
    assert kept.shares("明日もとても良い天気ですから散歩に行かない。")
    assert not kept.shares("昨日は良い天気でしたから、家にいました。")
    assert not kept.shares("今日は、どても良い天気ですかう。")  # voicing marks are heard


WORDS = st.lists(st.sampled_from("abcd"), max_size=14)


@settings(deadline=None)
@given(WORDS, WORDS)
def test_what_is_shared_is_what_a_search_finds(first, second):
    def runs(words):
        return {tuple(words[i : i + RUN_WORDS]) for i in range(len(words)) if i == 0 or i + RUN_WORDS <= len(words)}

    assert held_out([" ".join(first)]).shares(" ".join(second)) == bool(runs(first) & runs(second))


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=126), max_size=30))
def test_the_fast_path_of_plain_text_finds_the_same_words(text):
    assert [*overlap._words(text + " é")][:-1] == overlap._words(text)


def test_manifests_are_read_by_split(tmp_path):
    rows = [
        {"audio_filepath": f"{split}.flac", "duration": 1.0, "text": text, "split": split}
        for split, text in (("dev", TRANSCRIPT), ("train", "nothing of this is ever to be heard"))
    ]
    write_manifest(tmp_path / "all.jsonl", [*rows, {"audio_filepath": "x.flac", "duration": 1.0, "text": None}])
    assert read_held_out([f"{tmp_path}/all.jsonl:dev"]) == held_out([TRANSCRIPT])
    assert read_held_out([f"{tmp_path}/all.jsonl"]) == held_out(row["text"] for row in rows)
    assert read_held_out([]) == held_out([])
    with pytest.raises(DataError, match="no usable row of split 'tset'"):
        read_held_out([f"{tmp_path}/all.jsonl:tset"])
    with pytest.raises(DataError, match="no such manifest"):
        read_held_out([str(tmp_path / "none.jsonl")])
