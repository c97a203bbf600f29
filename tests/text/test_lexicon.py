import pytest

from kikitori.errors import DataError, ModelError
from kikitori.text.lexicon import Lexicon, lexicon_lines, numbered, read_lexicon, read_numbered, write_lexicon


def test_a_written_lexicon_reads_back(tmp_path):
    lexicon = Lexicon({"tea": (("t", "iy"),), "the": (("dh", "ax"), ("dh", "iy"))})
    (tmp_path / "en.tsv").write_text("\n".join(lexicon_lines(lexicon)))
    assert read_lexicon(tmp_path / "en.tsv") == lexicon
    assert lexicon.phones == ("ax", "dh", "iy", "t")


PLAIN = "# notes\na\tah\na\tey\nbe's\tb iy z\nsilence\tsil\na\tah\nb_c-d\tb iy s iy d iy\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        f";;; no note\n{PLAIN}",
        f"# a page\x0c\n# another\x0cb iy\n#\ta\tb\n{PLAIN}",
        f"# an old line end\rb\tb iy\n{PLAIN}",
        f"{PLAIN}a(2)\tax\n",
        f"{PLAIN}B\tb iy\n",
        f"{PLAIN}b\t0.5 b iy\n",
        PLAIN.rstrip(),
    ],
)
def test_read_as_a_whole_or_by_the_line(tmp_path, monkeypatch, text):
    (tmp_path / "en.tsv").write_text(text, newline="")
    found = read_lexicon(tmp_path / "en.tsv")
    monkeypatch.setattr("kikitori.text.lexicon._plain", lambda _: None)
    assert read_lexicon(tmp_path / "en.tsv") == found
    assert found.pronunciations["a"][:2] == (("ah",), ("ey",))
    assert "silence" not in found.pronunciations


@pytest.mark.parametrize("text", [PLAIN, f"{PLAIN}B\tb iy\n"])
def test_numbers_are_the_same_looked_up_or_all_at_once(tmp_path, text):
    numbers = {phone: number for number, phone in enumerate(["ah", "b", "d", "ey", "iy", "s", "z"])}
    (tmp_path / "en.tsv").write_text(text)
    found = read_numbered(tmp_path / "en.tsv", numbers)
    assert dict(found) == numbered(read_lexicon(tmp_path / "en.tsv"), numbers, "en.tsv")
    assert found["a"] == ((0,), (3,))
    assert "silence" not in found
    del numbers["d"]
    with pytest.raises(ModelError, match="'b_c-d' has the phone 'd'"):
        read_numbered(tmp_path / "en.tsv", numbers)


def test_texts_are_said_with_the_usual_pronunciations():
    lexicon = Lexicon({"tea": (("t", "iy"),), "the": (("dh", "ax"), ("dh", "iy"))})
    assert lexicon.pronounce("the tea") == ["dh", "ax", "t", "iy"]
    assert lexicon.pronounce("the green tea") is None
    assert lexicon.missing("the green tea") == ["green"]


def test_comments_and_repeated_lines_count_for_nothing(tmp_path):
    (tmp_path / "en.tsv").write_text("# phones of English\ntea\tt iy\n\ntea\tt iy\n")
    assert read_lexicon(tmp_path / "en.tsv").pronunciations == {"tea": (("t", "iy"),)}


@pytest.mark.parametrize("text", ["tea t iy\n", "tea\t\n", "\tt iy\n", "# nothing\n"])
def test_what_is_no_lexicon_is_refused(tmp_path, text):
    (tmp_path / "en.tsv").write_text(text)
    with pytest.raises(DataError):
        read_lexicon(tmp_path / "en.tsv")


@pytest.mark.parametrize("name", ["en.tsv", "en.tsv.gz", "en.tsv.xz"])
def test_files_with_notes_are_the_same_every_time(tmp_path, name):
    lexicon = Lexicon({"tea": (("t", "iy"),), "the": (("dh", "ax"), ("dh", "iy"))})
    for folder in ("a", "b"):
        write_lexicon(tmp_path / folder / name, lexicon, ["from a dictionary", "", "\tits licence"])
        assert read_lexicon(tmp_path / folder / name) == lexicon
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


AS_OTHERS_WRITE = {
    # MFA 2: the probabilities of the pronunciation, of silence behind it, and two factors (MFA's reports 646, models 8)
    "mfa": "hello\t0.01\t0.1\t1.2\t0.9\th ɛ l oʊ\n"
    "hello\t0.99\t0.2\t1.0\t1.0\th ə l oʊ\nworld\t1.0\t0.3\t0.9\t1.1\tw ɝ l d\n",
    "mfa-one": "hello\t1e-02\th ɛ l oʊ\nhello\t.99\th ə l oʊ\nworld\tw ɝ l d\n",
    "lexiconp": "!SIL\t1.0 SIL\n<UNK>\t1.0 SPN\nhello\t0.5 h ɛ l oʊ\nhello\t1 h ə l oʊ\nworld\t1 w ɝ l d\n",
    "lexiconp_silprob": "hello\t1.0 0.2 0.9 1.1 h ə l oʊ\n"
    "hello\t0.5 0.2 0.9 1.1 h ɛ l oʊ\nworld\t1.0 0.2 1.0 1.0 w ɝ l d\n",
    "lexicon_disambig": "<eps>\t#0\nhello\th ə l oʊ #1\nhello\th ɛ l oʊ #12\nworld\tw ɝ l d #1\n",
    "cmudict": ";;; a head\nhello\th ə l oʊ\nhello(2)\th ɛ l oʊ # rare\nworld\tw ɝ l d #its only one\n",
    "marks": "\ufeffhello\th ə l oʊ\nhel\u200blo\th ɛ l oʊ\n\ufeffworld\tw ɝ l d\n",
}


@pytest.mark.parametrize("name", AS_OTHERS_WRITE)
def test_lexicons_as_other_toolkits_write_them(name, tmp_path):
    (tmp_path / "en.tsv").write_text(AS_OTHERS_WRITE[name].replace("<eps>\t#0\n", ""))
    assert read_lexicon(tmp_path / "en.tsv").pronunciations == {
        "hello": (("h", "ə", "l", "oʊ"), ("h", "ɛ", "l", "oʊ")),
        "world": (("w", "ɝ", "l", "d"),),
    }


def test_phones_that_are_numbers_stay(tmp_path):
    (tmp_path / "sampa.tsv").write_text("peu\tp 2\nneuf\tn 9 f\neux\t2\nun\t1\nh\t_ h#\n")
    assert read_lexicon(tmp_path / "sampa.tsv").phones == ("1", "2", "9", "_", "f", "h#", "n", "p")
