import random
from itertools import groupby

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ModelError
from kikitori.text.spiece import named_units, read_tokenizer
from kikitori.text.units import load_units
from tests.published import TEXTS, TOKENIZER_CONFIG, train_spiece

MODELS = {
    "release": {},
    "identity": {"normalization_rule_name": "identity"},
    "nfkc": {"normalization_rule_name": "nfkc"},
    "dummy prefix": {"add_dummy_prefix": True},
    "library defaults": {"add_dummy_prefix": True, "remove_extra_whitespaces": True},
    "fewer characters": {"character_coverage": 0.98},
    "no bytes": {"byte_fallback": False, "vocab_size": 150},
    "across words": {"split_by_whitespace": False, "split_by_unicode_script": False},
}
ODD = [
    "",
    " ",
    "  吾輩は  猫である   ",
    "\u3000全角\u3000空白\u3000",
    "ｶﾞｷﾞﾊﾟｱｲｳ",
    "か\u3099は\u309aカ\u3099",
    "～〜ー－―①㍿Ｈｅｌｌｏ！？",
    "a\r\nb\n\nc\td\v\x85",
    "ニャーニャー泣いていた事だけは…‥記憶・している",
    "髙﨑神社の𠮷野家と𩸽",
    "😀👨‍👩‍👧🇯🇵❤️",
    "[SEP]x[MASK] [CLS]<NL>",
    "<s>吾輩</s>",
    "<0x41>[PAD][UNK]<unk>",
    "▁猫▁▁",
    "e\u0301Å½℃Ⅳﬁ",
    "ℂ\u0301½\u0300①️",
    "한국어 한",
    "\u200b\ufeff\u200dx\u00ad",
    "\x01\x1f\x7f",
    "</b><b>",
    "ﷺ",
]
LETTERS = [
    *"吾輩は猫である。名前\t\n　か①㍿ａＡ～〜ーé<s>[SEP]0x41▁/漢𠮷😀ℂª½ﬁ… ",
    *("\r\n", "\u200b", "\ufeff", "\u200d", "\x01", "\ufe0f", "<s>", "</s>", "[MASK]", "<0x0A>", "<unk>"),
]
# Combining marks where they have a meaning; elsewhere we may differ (see kikitori/text/spiece.py).
ALPHABETS = (
    LETTERS,
    [*"吾輩は ｶﾊﾞﾟカハか", "\u3099", "\u309a"],
    [*"aÅn ＡｅℂÅ", "e\u0301", "ｎ\u0303", "ℂ\u0301", "O\u0308"],
)


def units_of(model, folder):
    (folder / "spiece.model").write_bytes(model)
    return named_units(read_tokenizer(folder / "spiece.model"), TOKENIZER_CONFIG)


@pytest.fixture(scope="module", params=MODELS)
def models(request, tmp_path_factory):
    """The library's processor, and our units from the same model."""
    model = train_spiece(**MODELS[request.param])
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return processor, units_of(model, tmp_path_factory.mktemp("spiece"))


def assert_same_labels(models, text):
    processor, units = models
    # Including the labels of beginning and end, which `TokenizerUnits.encode` would drop.
    got = units.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    pieces = [[processor.id_to_piece(label) for label in labels] for labels in (got, processor.encode(text))]
    # Without bytes, characters next to each other that are unknown are one label, or two where we cut a name.
    got, expected = (
        [piece for piece, run in groupby(row) for _ in ([0] if piece == "[UNK]" else run)] for row in pieces
    )
    assert got == expected


@pytest.mark.parametrize("text", [*ODD, *TEXTS])
def test_texts_are_encoded_as_by_the_library(models, text):
    assert_same_labels(models, text)
    assert_same_labels(models, f"a{text}猫{text}")


@pytest.mark.parametrize("alphabet", ALPHABETS, ids=["letters", "voicing marks", "accents"])
def test_any_text_is_encoded_as_by_the_library(models, alphabet):
    draw = random.Random(1)  # noqa: S311
    for _ in range(700):
        assert_same_labels(models, "".join(draw.choices(alphabet, k=draw.randint(1, 25))))


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Mn", "Mc", "Me", "Cn"], exclude_characters="\0"), max_size=20))
def test_any_characters_are_encoded_as_by_the_library(release, text):
    assert_same_labels(release, text)


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    return (
        sentencepiece.SentencePieceProcessor(model_proto=train_spiece()),
        units_of(train_spiece(), tmp_path_factory.mktemp("spiece")),
    )


def test_any_labels_are_decoded_as_by_the_library(models):
    processor, units = models
    special = {units.special_id(token) for token in TOKENIZER_CONFIG.values() if isinstance(token, str)}
    draw = random.Random(2)  # noqa: S311
    first_byte = processor.piece_to_id("<0x00>")
    for _ in range(1500):
        labels = [draw.randrange(units.size) for _ in range(draw.randint(0, 12))]
        if units.size > 256 and draw.random() < 0.5:  # bytes as they come, most of them no UTF-8
            labels += [first_byte + byte for byte in "猫é𠮷".encode()[draw.randint(0, 3) :]]
            labels += [first_byte + draw.randrange(256) for _ in range(draw.randint(0, 4))]
        expected = processor.decode([label for label in labels if label not in special]).strip()
        assert units.decode(labels) == expected


def test_text_comes_back(release):
    _, units = release
    for text in [*TEXTS, "髙﨑神社の𠮷野家と𩸽", "😀👨‍👩‍👧", "a  b", "<s>猫</s>"]:
        assert units.decode(units.encode(text)) == text


def test_labels_beyond_the_vocabulary_say_nothing(release):
    _, units = release
    assert units.decode([*units.encode("吾輩"), units.size + 3, *units.encode("猫𠮷")]) == "吾輩猫𠮷"


def test_special_labels(release):
    _, units = release
    assert (units.bos_id, units.eos_id, units.special_id("[SEP]"), units.special_id("[PAD]")) == (2, 3, 5, 0)
    assert units.tokenizer.pad_token_id == 0
    assert units.size == sentencepiece.SentencePieceProcessor(model_proto=train_spiece()).get_piece_size()
    assert units.decode([2, 5, *units.encode("猫"), 6, 3, 0, 1]) == "猫"
    assert units.normalize(" ｶﾞ１ ") == "ガ1"


def test_saved_units_are_the_same(models, tmp_path):
    _, units = models
    units.save(tmp_path)
    again = load_units(tmp_path)
    assert again.tokenizer.get_vocab() == units.tokenizer.get_vocab()
    for text in [*ODD, *TEXTS]:
        assert again.encode(text) == units.encode(text)
        assert again.decode(again.encode(text)) == units.decode(units.encode(text))
    assert (again.bos_id, again.eos_id, again.size) == (units.bos_id, units.eos_id, units.size)


def test_long_form_of_special_tokens(tmp_path):
    (tmp_path / "spiece.model").write_bytes(train_spiece())
    eos = {"__type": "AddedToken", "content": "</s>", "lstrip": False}
    config = {"eos_token": eos, "sep_token": "[nothing]", "additional_special_tokens": ["<NL>", 7, "[none]"]}
    units = named_units(read_tokenizer(tmp_path / "spiece.model"), config)
    assert (units.eos_id, units.size) == (3, units_of(train_spiece(), tmp_path).size)
    newline = units.special_id("<NL>")
    assert newline is not None
    assert units.decode([newline, *units.encode("猫")]) == "猫"


@pytest.mark.parametrize("changes", [{"model_type": "bpe"}, {"treat_whitespace_as_suffix": True}])
def test_models_of_another_kind_are_refused(tmp_path, changes):
    with pytest.raises(ModelError, match=r"spiece.model: is no unigram model .*; add a tokenizer.json"):
        units_of(train_spiece(**changes), tmp_path)


def test_a_huge_file_is_not_read(tmp_path):
    with (tmp_path / "spiece.model").open("wb") as file:
        file.truncate(65 * 2**20)
    with pytest.raises(ModelError, match="larger than 64 MB"):
        read_tokenizer(tmp_path / "spiece.model")
