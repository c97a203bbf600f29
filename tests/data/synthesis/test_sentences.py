import pytest

from kikitori.data.overlap import held_out
from kikitori.data.synthesis.sentences import Choice, Sentence, choose_sentences
from kikitori.errors import ConfigError

LONG = Choice(shortest=1)


@pytest.mark.parametrize(
    "line",
    [
        "The year was 1900.",
        "King James VI came",
        "At No. 5 or so",
        "Mr. Crow came",
        "on the _other_ side",
        "a\x00b",
        "",
    ],
)
def test_what_may_be_read_in_several_ways_is_left_out(line):
    assert LONG.sentence(line) is None


def test_lines_are_taken_as_they_are_or_as_spoken():
    line = "“Well,” said Mr. Crow, “I don’t know.”"
    assert LONG.sentence(line) is None
    spoken = "“Well,” said mister Crow, “I don’t know.”"
    assert Choice(spoken_titles=True).sentence(line) == Sentence(spoken, spoken)
    plain = "well said mister crow i don't know"
    assert Choice(spoken_titles=True, text_form="en_plain").sentence(line) == Sentence(plain, spoken)


def test_length_is_in_words_or_in_characters_of_japanese():
    choice = Choice(shortest=3, longest=4)
    assert [bool(choice.sentence("go " * count)) for count in (2, 3, 4, 5)] == [False, True, True, False]
    choice = Choice(language="ja", shortest=3, longest=4)
    assert [bool(choice.sentence("あ" * count)) for count in (2, 3, 4, 5)] == [False, True, True, False]


def test_columns_of_a_table():
    choice = Choice(language="ja", column=2, spoken_column=3)
    assert choice.sentence("1\t東京へ行く。\tトーキョーエイク") == Sentence(
        "東京へ行く。", "トーキョーエイク", "トーキョーエイク"
    )
    assert choice.sentence("1\t東京へ行く。") is None
    assert Choice(language="ja", column=2).sentence("1\t東京へ行く。\tx") == Sentence("東京へ行く。", "東京へ行く。")


def test_characters_of_ones_own():
    assert Choice(characters="a-z ").sentence("only small letters")
    assert not Choice(characters="a-z ").sentence("Only small letters")
    assert Choice(language="de").sentence("Über 3 Brücken geht man.")  # no characters are known for it
    with pytest.raises(ConfigError, match="--characters: not what stands inside"):
        Choice(characters="z-a")


def test_texts_for_measuring_are_avoided():
    avoid = held_out(["ONE TWO THREE FOUR FIVE SIX"])
    assert Choice().sentence("And one, two, three, four, five, six!")
    assert Choice(avoid=avoid).sentence("And one, two, three, four, five, six!") is None


def test_one_of_each_stretch(tmp_path):
    numbers = ["one", "two", "three", "four"]
    (tmp_path / "text").write_text("".join(f"{n} is it\n{n} is {i}\n{n} it is\n" for i, n in enumerate(numbers)))

    def chosen(count):
        return [sentence.text for sentence in choose_sentences([tmp_path / "text"], Choice(), max_lines=count)]

    assert chosen(0) == [f"{n} {rest}" for n in numbers for rest in ("is it", "it is")]
    assert chosen(4) == [f"{n} is it" for n in numbers]
    assert chosen(2) == ["one is it", "three is it"]
    assert chosen(100) == chosen(0)
    (tmp_path / "text").write_text("")
    assert chosen(5) == []
