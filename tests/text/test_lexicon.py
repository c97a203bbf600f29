import pytest

from kikitori.errors import DataError
from kikitori.text.lexicon import Lexicon, lexicon_lines, read_lexicon, write_lexicon


def test_a_written_lexicon_reads_back(tmp_path):
    lexicon = Lexicon({"tea": (("t", "iy"),), "the": (("dh", "ax"), ("dh", "iy"))})
    (tmp_path / "en.tsv").write_text("\n".join(lexicon_lines(lexicon)))
    assert read_lexicon(tmp_path / "en.tsv") == lexicon
    assert lexicon.phones == ("ax", "dh", "iy", "t")


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
