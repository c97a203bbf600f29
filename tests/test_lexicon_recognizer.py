"""Lexicon search from a model folder: its files, n-best lists, rescoring, tuning."""

import json
import shutil
from dataclasses import replace

import pytest
import soundfile as sf
import torch
from typer.testing import CliRunner

from kikitori.cli import app
from kikitori.data.lexicon import Lexicon, lexicon_lines
from kikitori.decoding.options import LexiconSearch, LMOptions, RescoringSearch
from kikitori.decoding.prior import PHONE_PRIOR, load_prior
from kikitori.decoding.word_ngram import load_word_ngram, score_text
from kikitori.errors import ModelError
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.recognizer import load
from kikitori.scoring.tuning import Grid
from kikitori.text.arpa import read_arpa
from kikitori.text.packed_ngram import write_packed
from kikitori.tune import chosen_grids, lists_from_speech, tune_scales
from kikitori.types import Utterance
from tests.tiny import (
    save_tiny,
    save_tiny_llm,
    shake,
    tiny_acoustic_model,
    tiny_encoder_config,
    tiny_units,
    tiny_waveforms,
)

PHONES = ("a", "b", "c")
LEXICON = Lexicon({"aka": (("a", "b"), ("a",)), "ba": (("b",),), "cab": (("c",), ("c", "a"))})
ARPA = """\\data\\
ngram 1=6
ngram 2=2

\\1-grams:
-1.0 <unk> 0
-99 <s> -0.2
-0.9 </s>
-0.6 aka -0.3
-0.7 ba -0.1
-0.8 cab

\\2-grams:
-0.4 <s> ba
-0.3 aka ba

\\end\\
"""
WAVEFORMS = tiny_waveforms(8)


def phone_model():
    torch.manual_seed(0)
    sizes = {"ctc_layers": (1, 2), "num_units": tiny_units().size, "phones": PHONES, "phone_layers": (1, 2)}
    model = AcousticModel(AcousticModelConfig(tiny_encoder_config(), **sizes, phone_upsample=3)).eval()
    shake(model, 0, 0.1)
    for head in model.phone_heads.values():
        head.linear.weight.data *= 5.0
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import lzma

    path = tmp_path_factory.mktemp("recogniser") / "phones"
    save_tiny(path, phone_model())
    with lzma.open(path / "lexicon.tsv.xz", "wt") as file:
        file.writelines(f"{line}\n" for line in lexicon_lines(LEXICON))
    (path.parent / "words.arpa").write_text(ARPA)
    write_packed(path / "words.ngram", *read_arpa(path.parent / "words.arpa"))
    save_tiny_llm(path.parent / "lm")
    return path


def test_it_needs_nothing_but_the_folder(folder):
    recognizer, ngram = load(folder, device="cpu"), load_word_ngram(folder / "words.ngram")
    found = [recognizer.transcribe(waveform, decoding="lexicon") for waveform in WAVEFORMS]
    assert len({transcript.text for transcript in found}) > 3
    options, batched = LexiconSearch(), recognizer.transcribe_many(WAVEFORMS[::-1], decoding="lexicon")
    for transcript, other in zip(found, [*batched][::-1], strict=True):
        assert [each.text for each in transcript.nbest] == [each.text for each in other.nbest]
        for each in transcript.nbest:
            assert {*each.text.split()} <= {*LEXICON.pronunciations}
            assert each.labels == tuple(tiny_units().encode(each.text))
            assert each.shares["length"] == len(each.text.split())
            assert each.shares["ngram"] == pytest.approx(score_text(ngram, each.text.split()), abs=1e-4)
            assert each.score == pytest.approx(each.shares["ctc"] + options.ngram_scale * each.shares["ngram"])


def test_words_stand_side_by_side_as_the_language_of_the_model_writes_them(folder):
    spaced = load(folder, device="cpu")
    loaded = replace(spaced.loaded, trained_on=replace(spaced.loaded.trained_on, language="ja"))
    unspaced = replace(spaced, loaded=loaded)
    for waveform in WAVEFORMS:
        before = spaced.transcribe(waveform, decoding="lexicon")
        after = unspaced.transcribe(waveform, decoding="lexicon")
        joined = {each.text.replace(" ", ""): each.score for each in reversed(before.nbest)}
        assert {each.text: each.score for each in after.nbest} == joined
        assert len(after.nbest) == len(joined)
        assert after.text == before.text.replace(" ", "")


def test_its_lists_are_rescored(folder):
    recognizer = load(folder, device="cpu")
    lm = LMOptions(str(folder.parent / "lm"))
    scales = {"ngram": 0.5, "length": 0.3, "lm": 0.2}
    search = RescoringSearch(first=LexiconSearch(nbest=10), lms={"lm": lm}, scales=scales)
    before = recognizer.transcribe(WAVEFORMS[0], decoding=search.first)
    after = recognizer.transcribe(WAVEFORMS[0], decoding=search)
    assert {each.text for each in after.nbest} == {each.text for each in before.nbest}
    shares = {each.text: each.shares for each in before.nbest}
    for each in after.nbest:
        assert {name: each.shares[name] for name in ("ctc", "ngram", "length")} == shares[each.text]
        total = each.shares["ctc"] + sum(scale * each.shares[name] for name, scale in scales.items())
        assert each.score == pytest.approx(total)


def test_its_scales_are_tuned_on_its_own_lists(folder, tmp_path):
    texts = ("aka ba", "cab", "ba ba aka", "")
    utterances = []
    for number, (waveform, text) in enumerate(zip(WAVEFORMS, texts, strict=False)):
        file = tmp_path / f"{number}.wav"
        sf.write(file, waveform, 16000, subtype="FLOAT")
        utterances.append(Utterance(file, len(waveform) / 16000, text or None, utt_id=str(number)))
    options = LexiconSearch(lexicon=str(folder / "lexicon.tsv.xz"), beam=30)
    grids = chosen_grids(options, {"length": Grid(-1.0, 1.0, 1.0)})
    assert [*grids] == ["ctc", "ngram", "length"]
    sets = lists_from_speech(load(folder, device="cpu"), {"all": utterances}, options, [*grids])
    assert all({*h.shares} == {"ctc", "ngram", "length"} for row in sets["all"] for h in row.nbest)
    tuned = tune_scales({"all": sets["all"][:3]}, options, grids)
    scales = tuned.tuned.scales
    assert tuned.options == replace(options, ngram_scale=scales["ngram"], length_scale=scales["length"])


def test_files_are_loaded_once(folder):
    partners = load(folder, device="cpu").partners
    model, prior = partners.words(LexiconSearch(), PHONES)
    assert prior is None
    named = LexiconSearch(lexicon=str(folder / "lexicon.tsv.xz"), ngram=str(folder / "words.ngram"), ngram_scale=0.1)
    assert partners.words(named, PHONES)[0] is model


def test_what_is_missing_is_named(folder, tmp_path):
    save_tiny(tmp_path / "labels", tiny_acoustic_model())
    with pytest.raises(ModelError, match="no phone head"):
        load(tmp_path / "labels", device="cpu").transcribe(WAVEFORMS[0], decoding="lexicon")
    save_tiny(tmp_path / "alone", phone_model())
    alone = load(tmp_path / "alone", device="cpu")
    with pytest.raises(ModelError, match=r"there is no lexicon.tsv.xz; .*decoding\.lexicon"):
        alone.transcribe(WAVEFORMS[0], decoding="lexicon")
    search = LexiconSearch(lexicon=str(folder / "lexicon.tsv.xz"))
    with pytest.raises(ModelError, match=r"there is no words.ngram; .*decoding\.ngram"):
        alone.transcribe(WAVEFORMS[0], decoding=search)
    with pytest.raises(ModelError, match=r"there is no phone_prior.safetensors; .*decoding\.prior"):
        load(folder, device="cpu").transcribe(WAVEFORMS[0], decoding=LexiconSearch(prior_scale=0.1))


def test_the_phone_prior_is_the_mean_of_what_the_phone_head_hears(folder, tmp_path):
    copied = tmp_path / "with_prior"
    shutil.copytree(folder, copied)
    rows = []
    for number, waveform in enumerate(WAVEFORMS[:3]):
        sf.write(tmp_path / f"{number}.wav", waveform, 16000)
        rows.append({"audio_filepath": f"{number}.wav", "duration": len(waveform) / 16000, "text": "aka"})
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ("prior", "--phones", "--model", copied, "--data", tmp_path / "m.jsonl", "-o", copied / PHONE_PRIOR)
    result = CliRunner().invoke(app, [*map(str, call)])
    assert result.exit_code == 0, result.output
    recognizer = load(copied, device="cpu")
    total = torch.zeros(len(PHONES))
    for row in rows:
        log_probs, lengths = recognizer.phone_log_probs([sf.read(tmp_path / row["audio_filepath"], dtype="float32")[0]])
        total += log_probs[0, : lengths[0], :-1].exp().sum(dim=0)
    prior = load_prior(copied / PHONE_PRIOR, len(PHONES))
    torch.testing.assert_close(prior.exp(), total / total.sum(), atol=1e-4, rtol=1e-4)
    search = LexiconSearch(prior_scale=0.5)
    _, found = recognizer.partners.words(search, PHONES)
    assert torch.equal(found, prior)
    with pytest.raises(ModelError, match="other"):
        recognizer.partners.words(search, ("c", "b", "a"))
