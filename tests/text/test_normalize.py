"""Normalizers: what is scored, that it is stable, and that odd text never breaks it."""

import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kikitori.errors import ConfigError
from kikitori.scoring.metrics import ErrorCounts, counted_errors
from kikitori.text.forms.japanese import spoken_kana
from kikitori.text.forms.languages import UNSPACED
from kikitori.text.normalize import NORMALIZERS, WITHOUT_WORDS, default_normalizer, normalize, versioned
from kikitori.text.words import writes_spaces

VOICING = "\u3099\u309a"
PLAIN = ("mr", "didn't", "the", "colour", "cat", "uh", "it's", "he'd", "been", "(noise)", "well,")
NUMERIC = ("one", "oh", "ten", "million", "minus", "$", "1.5", "half", "and", "3rd", ".")


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "whisper_en",
            "Mr. Smith didn't pay $20 million, uh, in the harbour!",
            "mister smith did not pay $20000000 in the harbor",
        ),
        ("whisper_en", "  twenty one  ", "21"),
        ("whisper_en", "", ""),
        ("open_asr_en", "Mr. Smith's colour, it's $5; who's there?", "mister smith s color it is $5 who is there"),
        ("open_asr_en", "N.A.S.A., at 3 a.m. on the 2nd: A I", "nasa at 3 am on the 2nd a i"),
        ("open_asr_en", "He's been there, 'cause that's gone.", "he has been there cause that has gone"),
        ("open_asr_en", "Um, uh-huh: starved 'em. All right!", "starved alright"),
        ("open_asr_en", "about 3/4 of Ann and Sara", "about 34 of anne and sarah"),
        ("open_asr_en", "  ", ""),
        ("kana_ja", "きんとう、です。", "キントーデス"),
        ("basic", "Hé, [noise] wie geht's?", "hé wie geht s"),
        ("basic", "が ぱ ガ", "が ぱ ガ"),
        ("basic", "हिन्दी।", "हिन्दी"),
        ("nfkc_ja", "えーと、ＡＢＣ １２３。「東京」です！", "えーとabc123東京です"),
        ("nfkc_ja", "ｶﾞｰﾄﾞ", "ガード"),
        ("nfkc_ja", "人々・〜\u3000ラーメン\n\u200b", "人々ラーメン"),
        ("nfkc_ja", "か゛", "が"),
        ("none", " As it IS. ", " As it IS. "),
    ],
)
def test_examples(name: str, text: str, expected: str) -> None:
    assert normalize(name, text) == expected


@pytest.mark.parametrize("name", ["basic", "nfkc_ja"])
@pytest.mark.parametrize("text", ["がぎぐげご", "か\u3099", "ﾊﾞﾋﾟ", "か゛", "は゜", "あ\u3099"])
def test_dakuten_stay(name: str, text: str) -> None:
    marks = [mark for mark in unicodedata.normalize("NFKD", text) if mark in VOICING]
    assert marks
    assert [mark for mark in unicodedata.normalize("NFKD", normalize(name, text)) if mark in VOICING] == marks


@pytest.mark.parametrize("name", [name for name in NORMALIZERS if not name.endswith("_en")])
@settings(deadline=None)
@given(text=st.text(max_size=40) | st.text(alphabet="か゛ﾞ\u3099ー、( )[]<Aİß'.１", max_size=20))
def test_idempotent(name: str, text: str) -> None:
    once = normalize(name, text)
    assert normalize(name, once) == once


@settings(deadline=None)
@given(words=st.lists(st.sampled_from(PLAIN), max_size=8))
def test_whisper_en_is_idempotent_without_numbers(words: list[str]) -> None:
    once = normalize("whisper_en", " ".join(words))
    assert normalize("whisper_en", once) == once


def test_whisper_en_is_not_idempotent_on_some_numbers() -> None:
    once = normalize("whisper_en", "minus nine")
    assert (once, normalize("whisper_en", once)) == ("-9", "9")


@settings(deadline=None)
@given(text=st.text(max_size=60) | st.lists(st.sampled_from(NUMERIC), max_size=12).map(" ".join))
def test_english_never_fails(text: str) -> None:
    for name in ("whisper_en", "open_asr_en"):
        result = normalize(name, text)
        assert result == result.strip()
    result = normalize("whisper_en", text)
    assert result == result.strip()


def test_whisper_en_keeps_numbers_it_cannot_parse() -> None:
    assert normalize("whisper_en", "It's " + "1" * 5000) == "it is " + "1" * 5000


def test_unknown_name() -> None:
    with pytest.raises(
        ConfigError,
        match=r"whisper-en.*whisper_en, open_asr_en, basic, nfkc, nfkc_ja, reazon_ja, espnet_ja, kana_ja, none",
    ):
        normalize("whisper-en", "a")


@pytest.mark.parametrize(
    ("languages", "expected"),
    [
        (["en", "en"], "whisper_en"),
        (["en", "en-US", "EN_gb"], "whisper_en"),
        (["ja"], "nfkc_ja"),
        (["de"], "basic"),
        (["en", "ja"], "basic"),
        (["en", None], "basic"),
        ([None], "basic"),
        ([""], "basic"),
        ([], "basic"),
    ],
)
def test_default(languages: list[str | None], expected: str) -> None:
    assert default_normalizer(languages) == expected


def test_first_compile_gives_no_warning() -> None:
    code = (
        "import sys; sys.dont_write_bytecode = True; sys.pycache_prefix = '/nonexistent'\n"
        "import kikitori.text.normalize as n; assert 'whisper_normalizer' not in sys.modules\n"
        "import warnings; warnings.simplefilter('error')\n"
        "print(n.normalize('whisper_en', 'ten'), n.normalize('basic', 'Ja!'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("10 ja\n", "")


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("きんとう", "キントー"),
        ("キントー", "キントー"),
        ("せんじょうざい", "センジョーザイ"),
        ("おおきい", "オーキー"),
        ("ガク’セー", "ガクセー"),
        ("コオリ、キャア", "コーリキャー"),
        ("つづく", "ツズク"),
        ("ｷｮｳ", "キョー"),
        ("お化け", "オケ"),
        ("あいうえ", "アイウエ"),
        ("ー", ""),
        ("ンー", "ン"),
        ("", ""),
    ],
)
def test_what_sounds_alike_is_written_alike(text, spoken):
    assert spoken_kana(text) == spoken


@given(st.text(alphabet="あいうえおかきくけこんーゃょっアオウヲ、 a漢"))
def test_it_is_done_once(text):
    assert spoken_kana(spoken_kana(text)) == spoken_kana(text)


@pytest.mark.parametrize("name", ["whisper_en", "basic"])
@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("\ufeffCLOSED THE\u200b DOOR", "closed the door"),
        ("co\u00adoperate", "cooperate"),
        ("two\u2060gether \u202anow\u202c", "twogether now"),
        ("a\u200db\u200cc", "abc"),
        ("mother\u2019s", "mother's"),
        ("don\u02bct", "don't"),
        ("it\uff07s", "it's"),
        ("we`ll \u2018so\u2019", "we'll so"),
    ],
)
def test_what_cannot_be_seen_and_curly_apostrophes_cost_nothing(name: str, written: str, plain: str) -> None:
    assert normalize(name, written) == normalize(name, plain)


@pytest.mark.parametrize("text", ["\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645", "\u0d28\u0d4d\u200d"])
def test_joiners_stay_where_they_belong_to_the_spelling(text: str) -> None:
    assert normalize("basic", text) == unicodedata.normalize("NFKC", text)  # Persian, Malayalam


@pytest.mark.parametrize("language", ["zh", "zh-TW", "cmn", "yue", "zho", "th", "tha", "lo", "km", "my", "bo"])
def test_languages_without_spaces_are_scored_by_character(language: str) -> None:
    assert default_normalizer([language]) == "nfkc"
    assert counted_errors("nfkc", "今天天气很好。", "今天 天气真好") == ErrorCounts(1, 0, 0, 6)


def test_the_table_decides_how_words_are_split_and_errors_counted() -> None:
    for language in UNSPACED:
        assert not writes_spaces(language)
        assert default_normalizer([language]) in WITHOUT_WORDS
    assert {"ja", "zh", "yue", "th", "lo", "my", "km"} <= {*UNSPACED}


def test_a_normalizer_with_its_version() -> None:
    assert versioned("basic, whisper_en") == "basic 1, whisper_en 1"


def test_codes_of_three_letters() -> None:
    assert (default_normalizer(["eng", "en"]), default_normalizer(["jpn"])) == ("whisper_en", "nfkc_ja")
    assert default_normalizer(["zh", "ja"]) == "nfkc"
    assert default_normalizer(["zh", "en"]) == "basic"
