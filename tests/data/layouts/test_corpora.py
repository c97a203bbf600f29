"""Corpora that are known by name, a few files of each in its own layout."""

import pytest

from kikitori.data.layouts.corpora.csj import plain_text
from kikitori.errors import DataError
from tests.data.layouts.sounds import read, sound, tar, write


def test_librispeech(tmp_path):
    chapter = tmp_path / "LibriSpeech" / "dev-clean" / "84" / "121123"
    write(chapter / "84-121123.trans.txt", "84-121123-0000 GO ON\n84-121123-0001 IT'S LATE\n")
    for source in (tmp_path, tmp_path / "LibriSpeech" / "dev-clean", chapter):
        rows, _ = read("librispeech", source)
        assert [(row.utt_id, row.text, row.speaker, row.split, row.language) for row in rows] == [
            ("84-121123-0000", "GO ON", "84", "dev-clean", "en"),
            ("84-121123-0001", "IT'S LATE", "84", "dev-clean", "en"),
        ]
        assert rows[1].audio == chapter / "84-121123-0001.flac"


def test_common_voice(tmp_path):
    heading = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccents\tlocale\n"
    write(tmp_path / "clips" / "a.mp3", b"-")
    write(
        tmp_path / "train.tsv", heading + 'c1\ta.mp3\tHe said "no.\t2\t0\t\tfemale\t\tde\nc2\tb\tZwei\t2\t0\t\t\t\tde\n'
    )
    write(tmp_path / "test.tsv", heading)
    write(tmp_path / "other.tsv", heading + "c3\tz.mp3\tdrei\t0\t0\t\t\t\tde\n")
    write(tmp_path / "clip_durations.tsv", "clip\tduration[ms]\na.mp3\t2500\n")
    rows, _ = read("common-voice", tmp_path)
    assert [(row.utt_id, row.text, row.duration, row.speaker, row.split) for row in rows] == [
        ("a", 'He said "no.', 2.5, "c1", "train"),
        ("b", "Zwei", None, "c2", "train"),
    ]
    assert rows[0].extra == {"gender": "female"}
    assert rows[1].audio == tmp_path / "clips" / "b.mp3"
    assert [row.text for row in read("common-voice", tmp_path / "other.tsv")[0]] == ["drei"]
    write(tmp_path / "train.tsv", heading + "c1\ta.mp3\n")
    with pytest.raises(DataError, match=r"train.tsv:2: 2 fields where the heading has 9; mend"):
        read("common-voice", tmp_path)


def test_jsut(tmp_path):
    part = tmp_path / "jsut_ver1.1" / "basic5000"
    write(part / "transcript_utf8.txt", "BASIC5000_0001:水をマレーシアから買わなくてはならないのです。\n")
    rows, _ = read("jsut", tmp_path / "jsut_ver1.1")
    assert [(row.utt_id, row.split, row.language) for row in rows] == [("BASIC5000_0001", "basic5000", "ja")]
    assert rows[0].audio == part / "wav" / "BASIC5000_0001.wav"
    assert rows == read("jsut", part)[0]
    write(part / "transcript_utf8.txt", "BASIC5000_0001\n")
    with pytest.raises(DataError, match="no colon behind an id"):
        read("jsut", part)


def sdb(talk: str, stretch: str, word: str) -> str:
    return "\t".join([talk, "1", talk, stretch, "x", word, "読み"])


def test_csj(tmp_path):
    lines = [
        sdb("A01F0001", "0001 00000.425-00002.000 L:-001-001", "(F えー)"),
        sdb("A01F0001", "0001 00000.425-00002.000 L:-002-001", "一・"),
        sdb("A01F0001", "0001 00000.425-00002.000 L:-003-001", "(W ギーツ;技術)<H>"),
        sdb("A01F0001", "0002 00002.500-00003.000 L:-001-001", "(R ×××)"),
        sdb("A01F0001", "0003 00003.500-00004.000 L:-001-001", "(M それ"),
        sdb("A01F0001", "0004 00004.500-00005.000 L:-001-001", "は)"),
        sdb("A01F0001", "0005 00005.500-00006.000 L:-001-001", "<雑音>"),
    ]
    write(tmp_path / "MORPH" / "SDB" / "core" / "A01F0001.sdb", "\n".join(lines).encode("cp932"))
    dialogue = [sdb("D01F0001", f"0001 00001.000-00002.000 {side}:-001-001", "はい") for side in "LR"]
    write(tmp_path / "MORPH" / "SDB" / "noncore" / "D01F0001.sdb", "\n".join(dialogue).encode("cp932"))
    rows, left_out = read("csj", tmp_path)
    assert [(row.utt_id, row.text, row.offset, row.duration, row.split) for row in rows] == [
        ("A01F0001_0001", "えー一技術", 0.425, 1.575, "core"),
        ("D01F0001_0001L", "はい", 1.0, 1.0, "noncore"),
        ("D01F0001_0001R", "はい", 1.0, 1.0, "noncore"),
    ]
    assert rows[0].audio == tmp_path / "WAV" / "core" / "A01F0001.wav"
    assert rows[2].audio == tmp_path / "WAV" / "noncore" / "D01F0001-R.wav"
    assert rows[2].speaker == "D01F0001-R"
    assert [line.partition(".sdb:")[2] for line in left_out] == [
        "4: masked words in the stretch 0002 of A01F0001",
        "5: a tag goes on behind the stretch 0003 of A01F0001",
        "6: a tag goes on behind the stretch 0004 of A01F0001",
    ]


@pytest.mark.parametrize(
    ("tagged", "plain"),
    [
        ("それでは", "それでは"),
        ("(F あのー)(D こ)これ", "あのーここれ"),
        ("(M (F うーん)(W ソイデ;それで))は", "うーんそれでは"),
        ("(A キロバイト;ＫＢ)の(K たち(F んー)ばな;橘)", "ＫＢの橘"),
        ("(? タオングー,タオ)と(?)", "タオングー,タオと"),
        ("(笑 ははは)<笑>", "ははは"),
        ("(F えー", None),
        ("えー)", None),
    ],
)
def test_tags_of_csj(tagged, plain):
    assert plain_text(tagged) == plain


def test_reazonspeech(tmp_path):
    one, two = sound(seed=1), sound(seed=2)
    write(tmp_path / "tiny.tsv", "000/a.flac\tはい。\n000/b.flac\tいいえ。\n000/c.flac\t無い\n")
    tar(tmp_path / "000.tar", {"000/b.flac": two, "000/a.flac": one, "000/x.flac": one, "note.txt": b""})
    rows, left_out = read("reazonspeech", tmp_path)
    assert [(row.utt_id, row.text, row.data and row.data.read(), row.language) for row in rows] == [
        ("000/b.flac", "いいえ。", two, "ja"),
        ("000/a.flac", "はい。", one, "ja"),
    ]
    assert left_out == [f"{tmp_path}/tiny.tsv:3: 000/c.flac is in none of the tars"]
    (tmp_path / "000.tar").write_bytes((tmp_path / "000.tar").read_bytes()[:5000])
    with pytest.raises(DataError, match="is no whole tar"):
        read("reazonspeech", tmp_path)
    (tmp_path / "000.tar").unlink()  # unpacked
    rows, _ = read("reazonspeech", tmp_path / "tiny.tsv")
    assert rows[0].audio == tmp_path / "000" / "a.flac"
    assert rows[0].data is None
