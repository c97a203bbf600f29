import pytest

from kikitori.data.layouts.base import Columns
from kikitori.errors import DataError
from tests.data.layouts.sounds import read, write


def test_usual_columns(tmp_path):
    table = write(
        tmp_path / "data.csv",
        "\ufeffID,duration,wav,spk_id,text,offset,split,room\n"
        'u1,1.5,a.wav,s1,"Yes, ""please""",0.5,train,big\n'
        "u2,,b.wav,,,,,\n"
        "u3,1,,,,,,\n",
    )
    rows, left_out = read("table", table)
    assert [(row.utt_id, row.text, row.duration, row.offset, row.speaker, row.split) for row in rows] == [
        ("u1", 'Yes, "please"', 1.5, 0.5, "s1", "train"),
        ("u2", "", None, 0.0, None, None),
    ]
    assert rows[0].audio == tmp_path / "a.wav"
    assert rows[0].extra == {"room": "big"}
    assert left_out == [f"{table}:4: no audio"]


@pytest.mark.parametrize("delimiter", ["\t", ";", "|"])
def test_other_columns_and_delimiters(tmp_path, delimiter):
    table = write(tmp_path / "data.tsv", f"clip{delimiter}what\n/x/a.wav{delimiter}yes\n")
    rows, _ = read("table", table, Columns(audio="clip", text="what"))
    assert [(row.utt_id, row.text, str(row.audio)) for row in rows] == [("/x/a.wav", "yes", "/x/a.wav")]
    assert rows[0].extra == {}


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (
            "clip,what\na.wav,yes\n",
            Columns(),
            "no column audio, wav, audio_filepath or the like among clip, what; name",
        ),
        (
            "wav,what\na.wav,yes\n",
            Columns(text="said"),
            "no column 'said' among wav, what; name one with --text-column",
        ),
        ("wav,text\na.wav,yes,no\n", Columns(), "data.csv:2: 3 fields where the heading has 2"),
        ("wav,duration\na.wav,long\n", Columns(), "data.csv:2: 'long' is no time in seconds"),
        ('wav,text\na.wav,"yes\n', Columns(), "not a table"),
    ],
)
def test_what_is_broken_is_named(tmp_path, content, columns, message):
    table = write(tmp_path / "data.csv", content)
    with pytest.raises(DataError, match=message):
        read("table", table, columns)
