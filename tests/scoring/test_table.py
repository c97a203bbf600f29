from kikitori.scoring.table import text_table


def test_columns_are_aligned_and_wide_characters_take_two_places():
    rows = [["set", "WER", "CER"], ["[b]日本", "0.1", "12"], ["long name", "10.25", "-"]]
    assert text_table(rows).splitlines() == [
        "set          WER  CER",
        "[b]日本      0.1   12",
        "long name  10.25    -",
    ]


def test_no_width_of_a_terminal_breaks_a_line():
    assert text_table([["a" * 300, "b" * 300], ["c", "d"]]).count("\n") == 1
