import io
import json
import shutil

import numpy as np
import pytest
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kikitori.errors import ConfigError, DataError, ModelError
from kikitori.text import units as units_module
from kikitori.text.unit_training import character_units, sentencepiece_units
from kikitori.text.units import SPECIALS, WORD_MARK, TokenizerUnits, load_units, with_text_form
from tests.tiny import save_tiny_llm, tiny_bpe

FORMS = ("as_is", "lower", "en_plain")


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = np.random.default_rng(seed)
    onsets, vowels = ["b", "st", "tr", "m", "k", "sh", "l", ""], ["a", "e", "i", "o", "ou"]

    def word() -> str:
        return "".join(str(draw.choice(onsets) + draw.choice(vowels)) for _ in range(draw.integers(1, 5)))

    words = [word() for _ in range(150)]
    return [" ".join(draw.choice(words, draw.integers(1, 13)).tolist()) for _ in range(count)]


TEXTS = sentences(400)


@pytest.fixture(scope="module")
def pieces() -> TokenizerUnits:
    return sentencepiece_units(TEXTS, 120, "en_plain")


@pytest.fixture(scope="module")
def processor() -> sentencepiece.SentencePieceProcessor:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=120,
        character_coverage=1.0,
        normalization_rule_name="identity",
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
        num_threads=1,
    )
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def test_vocabulary_is_that_of_sentencepiece(pieces, processor):
    vocabulary = pieces.tokenizer.get_vocab()
    assert pieces.size == processor.get_piece_size() == len(vocabulary) == 120
    assert all(vocabulary[processor.id_to_piece(i)] == i for i in range(120))
    assert (pieces.bos_id, pieces.eos_id) == (1, 2)


def test_segmentation_is_that_of_sentencepiece(pieces, processor):
    for text in [*TEXTS, *sentences(300, seed=1), "zebra quiz", "", "a", "stou  shi "]:
        mine, theirs = pieces.encode(text), processor.encode(text)
        if mine != theirs:  # ties may go either way
            score = processor.get_score
            assert sum(map(score, mine)) == pytest.approx(sum(map(score, theirs)), abs=1e-4), text
            assert 0 not in mine


@settings(max_examples=30, deadline=None)
@given(st.text(alphabet="abehiklmorstu xyz", max_size=40))
def test_any_text_is_segmented_as_by_sentencepiece(pieces, processor, text):
    mine, theirs = pieces.encode(text), processor.encode(text)
    assert [label for label in mine if label] == [label for label in theirs if label] or sum(
        map(processor.get_score, mine)
    ) == pytest.approx(sum(map(processor.get_score, theirs)), abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.text(alphabet="abehiklmorstuABEÀé ’'-,.\t", max_size=40))
def test_pieces_read_back_as_the_normalized_text(pieces, text):
    labels = pieces.encode(text)
    if 0 not in labels:
        assert pieces.decode(labels) == pieces.normalize(text)


def test_training_pieces_is_repeatable(pieces):
    again = sentencepiece_units(iter(["", *TEXTS]), 120, "en_plain")
    assert again.tokenizer.get_vocab() == pieces.tokenizer.get_vocab()


@pytest.mark.parametrize(("texts", "size"), [([], 10), (["", " "], 10), (["abcdefghijkl"], 5), (["ab"], 500)])
def test_too_little_text_for_pieces(texts, size):
    with pytest.raises(DataError, match=f"SentencePiece could not train {size} pieces .*; ask for fewer units"):
        sentencepiece_units(texts, size, "as_is")


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=30), st.sampled_from(FORMS))
def test_characters_round_trip(text, form):
    units = character_units(["anchor", text], form)
    labels = units.encode(text)
    normalized = units.normalize(text)
    assume(not any(token in normalized for token in SPECIALS))
    assert units.decode(labels) == normalized
    assert units.normalize(normalized) == normalized
    assert all(2 < label < units.size for label in labels)
    assert len(labels) == len(normalized) + bool(normalized)  # the word mark stands before every word


def test_characters_are_sorted_after_specials_and_word_mark():
    units = character_units(["b a", "ca"], "as_is")
    assert sorted(units.tokenizer.get_vocab(), key=units.tokenizer.get_vocab().get) == [
        "<unk>", "<s>", "</s>", WORD_MARK, "a", "b", "c",
    ]  # fmt: skip
    assert units.encode("ab c") == [3, 4, 5, 3, 6]
    assert units.encode("axb") == [3, 4, 0, 5]
    assert units.decode([1, 3, 4, 0, 5, 2]) == "ab"
    assert units.encode("") == units.encode("   ") == []
    assert units.decode([]) == ""


def test_no_characters():
    with pytest.raises(DataError, match="no text to take characters from"):
        character_units(["", "123"], "en_plain")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello, World!", "hello world"),
        ("don't DON’T don‘t don`t", "don't don't don't don't"),
        ("‘quoted’ 'quoted' “Quoted”", "quoted quoted quoted"),
        ("rock 'n' roll, the dogs' bowl, 'tis", "rock n roll the dogs bowl tis"),
        ("don''t", "don t"),
        ("café Noël naïve Ångström", "cafe noel naive angstrom"),
        ("cafe\u0301 ﬁne", "cafe fine"),
        ("room 101 is 3rd", "room is rd"),
        ("twenty-one\tand\na half…", "twenty one and a half"),
        ("  ", ""),
        ("日本", ""),
        ("'", ""),
    ],
)
def test_en_plain(text, expected):
    assert character_units(["a"], "en_plain").normalize(text) == expected


@pytest.mark.parametrize(("form", "expected"), [("as_is", "Ab C カ 1."), ("lower", "ab c カ 1."), ("en_plain", "ab c")])
def test_text_forms(form, expected):
    assert character_units(["a"], form).normalize("  Ab\u3000Ｃ ｶ　①. ") == expected


def test_unknown_text_form():
    with pytest.raises(ConfigError, match="unknown text form 'upper'; use as_is, lower or en_plain"):
        character_units(["a"], "upper")


def test_special_tokens_in_a_text_are_no_labels(pieces):
    units = character_units(["ab cd < / s >"], "as_is")
    for text in ("ab</s>cd", "<s>", "ab </s>", "<s>ab</s>"):
        assert not {1, 2} & set(units.encode(text))
        assert not {1, 2} & set(pieces.encode(text))
    assert units.encode("ab </s>")[:3] == units.encode("ab")


def test_special_id(pieces):
    assert [pieces.special_id(token) for token in ("<unk>", "<s>", "</s>", "[SEP]")] == [0, 1, 2, None]


def test_saved_units_are_the_same(tmp_path, pieces):
    for name, units in (("pieces", pieces), ("characters", character_units(TEXTS, "lower"))):
        units.save(tmp_path / name)
        loaded = load_units(tmp_path / name)
        assert (loaded.size, loaded.bos_id, loaded.eos_id) == (units.size, units.bos_id, units.eos_id)
        for text in [*TEXTS[:50], "Mixed CASE, don’t!", "a</s>b", ""]:
            assert loaded.encode(text) == units.encode(text)
            assert loaded.normalize(text) == units.normalize(text)
            assert loaded.decode(loaded.encode(text)) == units.decode(units.encode(text))


@pytest.fixture(scope="module")
def llm_folder(tmp_path_factory):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: index for index, symbol in enumerate([*alphabet, "th", "Ġth"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("t", "h"), ("Ġ", "th")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    folder = tmp_path_factory.mktemp("llm")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",  # noqa: S106
        additional_special_tokens=["<|user|>"],
    ).save_pretrained(folder)
    return folder


def test_units_of_an_llm(llm_folder):
    units = load_units(str(llm_folder))
    assert (units.size, units.bos_id, units.eos_id) == (260, None, units.special_id("<|end|>"))
    for text in ("Is this it? 聞き取り 42", "the <|end|> of <|user|>"):
        assert units.normalize(text) == text
        labels = units.encode(text)
        assert units.decode(labels) == text
        assert not {units.eos_id, units.special_id("<|user|>")} & set(labels)
    assert units.encode(" th") == [units.special_id("Ġth")]
    assert units.decode([*units.encode("ok"), units.eos_id]) == "ok"


def test_folder_without_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match=r"the folder holds no tokenizer.json; copy the tokenizer files too"):
        load_units(tmp_path)
    with pytest.raises(ModelError, match="missing: cannot load the tokenizer"):
        load_units(tmp_path / "missing")


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("tokenizer.json", "{nonsense"),
        ("tokenizer.json", "{}"),
        ("tokenizer.json", '{"version": "1.0", "added_tokens": [], "model": {"type": "Trigram"}}'),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["evil.Evil", null]}, "tokenizer_class": "Evil"}'),
    ],
)
def test_broken_and_foreign_tokenizers(llm_folder, tmp_path, monkeypatch, file, content):
    folder = shutil.copytree(llm_folder, tmp_path / "llm")
    (folder / file).write_text(content)
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked whether to run code"))
    with pytest.raises(ModelError, match="cannot load the tokenizer"):
        load_units(folder)


def test_tokenizer_without_end_of_sentence(llm_folder, tmp_path):
    folder = shutil.copytree(llm_folder, tmp_path / "llm")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": None}))
    with pytest.raises(ModelError, match="names no end-of-sentence token; set eos_token"):
        load_units(folder)


def test_all_text_forms_are_covered():
    assert set(units_module.TextForm.__args__) == set(FORMS)


@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_an_llms_units_write_a_text_form_and_keep_it(kind, tmp_path):
    own = tiny_bpe(kind)
    units = with_text_form(own, "lower")
    assert units.encode("The  QUICK") == own.encode("the quick")
    assert own.encode("The  QUICK") != own.encode("the quick")  # left alone
    assert units.decode(units.encode("The  QUICK")) == "the quick"
    units.save(tmp_path)
    loaded = load_units(tmp_path)
    assert loaded.tokenizer.get_vocab() == own.tokenizer.get_vocab()
    for again in (units, loaded, with_text_form(loaded, "as_is"), with_text_form(loaded, "lower")):
        assert again.encode("The  QUICK") == own.encode("the quick")
        assert again.verbatim.encode("The  QUICK") == own.encode("The  QUICK")
        assert again.verbatim.verbatim.encode("The  QUICK") == own.encode("The  QUICK")
    assert with_text_form(loaded, "en_plain").encode("The Quick, 1!") == own.encode("the quick")
    loaded.verbatim.save(tmp_path / "verbatim")
    assert load_units(tmp_path / "verbatim").encode("The  QUICK") == own.encode("The  QUICK")


def test_units_without_a_text_form_of_ours_are_verbatim():
    own = tiny_bpe()
    assert with_text_form(own, "as_is") is own
    assert own.verbatim is own
    characters = character_units(TEXTS, "lower")
    assert characters.verbatim is characters  # prompts are written in lower case too: there is nothing else


def test_a_tokenizer_without_an_end_is_refused_by_its_name(tmp_path):
    tiny_bpe().save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    del settings["eos_token"]
    file.write_text(json.dumps(settings))
    with pytest.raises(ModelError) as caught:
        load_units(tmp_path)
    what = "the tokenizer names no end-of-sentence token; set eos_token in its tokenizer_config.json"
    assert str(caught.value) == f"{tmp_path}: {what}"


@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_units_in_an_llms_folder_are_those_that_were_saved(family, tmp_path):
    # transformers knows a tokenizer class for some kinds of LLM and takes it, whatever the folder says.
    for name, units in (("letters", character_units(TEXTS, "en_plain")), ("bpe", with_text_form(tiny_bpe(), "lower"))):
        save_tiny_llm(tmp_path / name, family, units=units)
        loaded = load_units(tmp_path / name)
        assert loaded.size == units.size
        assert loaded.encode("The Quick") == units.encode("The Quick")
