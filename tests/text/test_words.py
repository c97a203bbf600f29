import pytest

from kikitori.text.words import join_words, writes_spaces


@pytest.mark.parametrize(
    ("language", "spaces"), [("ja", False), ("ja-JP", False), ("zh", False), ("en", True), (None, True)]
)
def test_words_are_joined_as_their_language_writes_them(language, spaces):
    assert writes_spaces(language) is spaces
    assert join_words(["東京", "に"], language) == ("東京 に" if spaces else "東京に")
