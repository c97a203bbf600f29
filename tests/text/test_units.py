import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kikitori.errors import ConfigError, ModelError
from kikitori.text import units as units_module
from kikitori.text.forms.text_form import in_form
from kikitori.text.unit_training import character_units, sentencepiece_units
from kikitori.text.units import TokenizerUnits, load_units, with_text_form
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


@pytest.mark.parametrize(
    ("text_form", "text", "expected"),
    [
        ("as_is", "\ufeffCo\u00adoperate\u200b now", "Cooperate now"),
        ("lower", "\ufeffDon\u2019t well\u2011known \u2018so\u2019", "don't well-known \u2018so\u2019"),
        ("en_plain", "co\u00adop\u200bs don\u02bct", "coops don't"),
        (
            "lower",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
        ),
        ("lower", "a\u200cb \u0d28\u0d4d\u200d\u200d", "ab \u0d28\u0d4d\u200d"),
    ],
)
def test_forms_leave_out_what_cannot_be_seen(text_form, text, expected):
    assert in_form(text, text_form) == expected
    assert not set("\u200b\ufeff\u00ad") & set(character_units([text], text_form).tokenizer.get_vocab())


@pytest.mark.parametrize("form", ["as_is", "lower", "en_plain"])
@pytest.mark.parametrize("kind", ["bytes", "characters"])
def test_whether_texts_have_labels_is_whether_encoding_finds_some(kind, form):
    units = with_text_form(tiny_bpe(kind), form)
    drawn = np.random.default_rng(0)
    parts = ["the", "Fox", "...", "’", "'", " ", "  ", "4", "é", "\u0301", "\u200b", "聞", "</s>", "-", "\t"]
    texts = [" ".join(drawn.choice(parts, drawn.integers(0, 25))) for _ in range(200)]
    texts += ["", " ", ". " * 40 + "fox", "' " * 40, "x" * 90, "'" * 30 + " a"]
    assert units.have_labels(texts) == [bool(units.encode(text)) for text in texts]
    assert len({*units.have_labels(texts)}) == 2
    assert units.have_labels([]) == []
