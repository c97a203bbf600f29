"""CTC heads over kana and phones on a Whisper, whose decoder writes kanji."""

import pytest
import torch

from kikitori.errors import ModelError
from kikitori.loading import load
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.encoder import SpeechEncoder
from kikitori.model.folder import save_model
from kikitori.model.published.convert import convert_heads
from kikitori.model.published.part import PARTS
from kikitori.recognizer import PLAIN
from kikitori.scorers.options import ScorerOptions
from kikitori.scorers.tree import score_sequences
from kikitori.search.guards import CTC_DISAGREES
from kikitori.search.options import BeamSearch, LexiconSearch, RescoringSearch
from kikitori.text.lexicon import Lexicon, write_lexicon
from kikitori.text.ngram.arpa import read_arpa
from kikitori.text.ngram.packed import write_packed
from kikitori.text.unit_training import character_units
from kikitori.types import TrainedOn
from tests.tiny import save_tiny_whisper, tiny_waveforms, tiny_whisper

WAVEFORMS = tiny_waveforms(4, seconds=(0.8, 1.6))
KANA = character_units(["ウエアイ"], "as_is")
PHONES = ("a", "e", "i", "u")
LEXICON = Lexicon({"上": (("u", "e"),), "飢え": (("u", "e"),), "藍": (("a", "i"),), "絵": (("e",),)})
UNIGRAMS = ["-99 <s>", "-1.0 </s>", "-2.0 <unk>", "-1.0 上", "-3.0 飢え", "-2.0 藍", "-1.5 絵"]
BEHIND = RescoringSearch(
    first=LexiconSearch(beam=50, nbest=6),
    scorers={"speech_llm": ScorerOptions(scale=0.3), "ngram": ScorerOptions(scale=0.5)},
)


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    save_tiny_whisper(root / "whisper-tiny", tiny_whisper(multilingual=True))
    torch.manual_seed(1)
    encoder = SpeechEncoder.from_pretrained(root / "whisper-tiny")
    encoder.config.window = "speech"
    sizes = {"ctc_layers": [2], "num_units": KANA.size, "phones": PHONES, "phone_layers": [2]}
    heads = AcousticModel(AcousticModelConfig(encoder_config=encoder.config, **sizes), encoder=encoder).eval()
    save_model(root / "run", heads, KANA, TrainedOn(20.0, 2.0, "ja"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PARTS, str(root))
        convert_heads(root / "run", "someone/whisper-tiny", root / "part")
        write_lexicon(root / "part" / "lexicon.tsv.xz", LEXICON)
        arpa = ["\\data\\", f"ngram 1={len(UNIGRAMS)}", "", "\\1-grams:", *UNIGRAMS, "", "\\end\\", ""]
        (root / "words.arpa").write_text("\n".join(arpa), encoding="utf-8")
        write_packed(root / "part" / "words.ngram", *read_arpa(root / "words.arpa"))
        yield root / "part"


def test_the_decoder_chooses_between_words_that_sound_alike(part):
    recognizer = load(part, device="cpu", guards=PLAIN)
    batch = recognizer.encode(WAVEFORMS)
    found = recognizer.try_recognize(WAVEFORMS, BEHIND)
    texts = [[each.text for each in nbest] for nbest in found]
    assert any(len({*nbest}) > 1 for nbest in texts)
    units = recognizer.loaded.units
    with torch.inference_mode():
        scores = score_sequences(batch.decoder(), [[units.encode(text) for text in nbest] for nbest in texts]).scores
    for nbest, expected in zip(found, scores, strict=True):
        assert [each.scores["speech_llm"] for each in nbest] == pytest.approx(expected, rel=1e-4)
        for each in nbest:
            shares = each.scores["ctc"] + 0.3 * each.scores["speech_llm"] + 0.5 * each.scores["ngram"]
            assert each.score == pytest.approx(shares, rel=1e-4)
    alone = [recognizer.recognize([waveform], BEHIND)[0].text for waveform in WAVEFORMS]
    assert alone == [nbest[0] for nbest in texts]


def test_what_the_decoder_writes_is_not_held_against_kana(part):
    careful, plain = load(part, device="cpu"), load(part, device="cpu", guards=PLAIN)
    for waveform in WAVEFORMS:
        ((careless, *_),) = plain.try_recognize([waveform], "greedy", careful.guards)
        assert careless.ctc_agreement is None
        assert CTC_DISAGREES not in careless.warnings


def test_searches_that_spell_are_refused(part):
    recognizer = load(part, device="cpu", guards=PLAIN)
    behind_beam = RescoringSearch(first=BeamSearch(), scorers={"ctc": ScorerOptions(scale=0.1)})
    for search in ("joint", behind_beam):
        with pytest.raises(ModelError, match="the CTC head writes kana as they sound, and the decoder kanji too"):
            recognizer.recognize(WAVEFORMS[:1], search)


def test_words_have_times(part):
    transcript = load(part, device="cpu").transcribe(WAVEFORMS[0], decoding="lexicon", word_times=True)
    assert transcript.text
    assert "".join(word.word for word in transcript.words) == transcript.text
