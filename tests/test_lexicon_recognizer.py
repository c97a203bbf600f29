"""Lexicon search from a model folder: its files, n-best lists, rescoring, tuning, drafts for a speech LLM."""

import json
import lzma
import shutil
from dataclasses import replace
from math import inf, log

import pytest
import soundfile as sf
import torch
from typer.testing import CliRunner

from kikitori.cli import app
from kikitori.errors import ModelError
from kikitori.io.model_folder import PHONE_PRIOR
from kikitori.loading import load
from kikitori.model.acoustic_model import AcousticModel, AcousticModelConfig
from kikitori.model.adapters.folder import merge_adapter
from kikitori.scorers.ctc.phones import word_log_probs
from kikitori.scorers.options import ScorerOptions, with_scales
from kikitori.scorers.prior import load_prior
from kikitori.scoring.tuning.grids import Grid
from kikitori.search.autoregressive import run as decode
from kikitori.search.autoregressive.generate import greedy
from kikitori.search.length import Limits, label_limit
from kikitori.search.lexicon.search import lexicon_search
from kikitori.search.options import (
    CTCBeamSearch,
    CTCGreedySearch,
    GreedySearch,
    LexiconSearch,
    RescoringSearch,
    SpeculativeSearch,
)
from kikitori.search.pruning import LexiconPruning
from kikitori.text.lexicon import Lexicon, lexicon_lines
from kikitori.text.ngram.arpa import read_arpa
from kikitori.text.ngram.model import load_ngram, score_text
from kikitori.text.ngram.packed import write_packed
from kikitori.text.prompt import DRAFT_ROOM
from kikitori.types import Utterance
from kikitori.workflows.picture import attention_weights
from kikitori.workflows.tuning.lists import list_searches, lists_from_speech
from kikitori.workflows.tuning.tune import chosen_grids, tune_scales
from tests.adapters import make_adapter
from tests.tiny import (
    save_tiny,
    save_tiny_llm,
    shake,
    tiny_acoustic_model,
    tiny_encoder_config,
    tiny_speech_llm,
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


def phone_model(ctc_layers=(1, 2)):
    torch.manual_seed(0)
    sizes = {"ctc_layers": ctc_layers, "num_units": tiny_units().size, "phones": PHONES, "phone_layers": (1, 2)}
    model = AcousticModel(AcousticModelConfig(tiny_encoder_config(), **sizes, phone_upsample=3)).eval()
    shake(model, 0, 0.1)
    for head in model.phone_heads.values():
        head.linear.weight.data *= 5.0
    return model


def save_words(path):
    with lzma.open(path / "lexicon.tsv.xz", "wt") as file:
        file.writelines(f"{line}\n" for line in lexicon_lines(LEXICON))
    (path.parent / "words.arpa").write_text(ARPA)
    write_packed(path / "words.ngram", *read_arpa(path.parent / "words.arpa"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recogniser") / "phones"
    save_tiny(path, phone_model())
    save_words(path)
    save_tiny_llm(path.parent / "lm")
    return path


@pytest.fixture(scope="module")
def speaking(tmp_path_factory):
    """A speech LLM with a phone head, whose own search is `lexicon`."""
    path = tmp_path_factory.mktemp("speaking") / "model"
    save_tiny(path, tiny_speech_llm(acoustic=phone_model()))
    save_words(path)
    (path / "decoding.yaml").write_text("search: lexicon\nngram_scale: 0.1\n")
    return path


def test_it_needs_nothing_but_the_folder(folder):
    recognizer, ngram = load(folder, device="cpu"), load_ngram(folder / "words.ngram")
    found = [recognizer.transcribe(waveform, decoding="lexicon") for waveform in WAVEFORMS]
    assert len({transcript.text for transcript in found}) > 3
    options, batched = LexiconSearch(), recognizer.transcribe_many(WAVEFORMS[::-1], decoding="lexicon")
    for transcript, other in zip(found, [*batched][::-1], strict=True):
        assert [each.text for each in transcript.nbest] == [each.text for each in other.nbest]
        for each in transcript.nbest:
            assert {*each.text.split()} <= {*LEXICON.pronunciations}
            assert each.labels == tuple(tiny_units().encode(each.text))
            assert each.scores["length"] == len(each.text.split())
            assert each.scores["ngram"] == pytest.approx(score_text(ngram, each.text.split()), abs=1e-4)
            assert each.score == pytest.approx(each.scores["ctc"] + options.scale("ngram") * each.scores["ngram"])


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
    lm = ScorerOptions(path=str(folder.parent / "lm"))
    scales = {"ngram": 0.5, "length": 0.3, "lm": 0.2}
    search = RescoringSearch(first=LexiconSearch(nbest=10), scorers=with_scales({"lm": lm}, scales))
    before = recognizer.transcribe(WAVEFORMS[0], decoding=search.first)
    after = recognizer.transcribe(WAVEFORMS[0], decoding=search)
    assert {each.text for each in after.nbest} == {each.text for each in before.nbest}
    shares = {each.text: each.scores for each in before.nbest}
    for each in after.nbest:
        assert {name: each.scores[name] for name in ("ctc", "ngram", "length")} == shares[each.text]
        total = each.scores["ctc"] + sum(scale * each.scores[name] for name, scale in scales.items())
        assert each.score == pytest.approx(total)


def test_phones_score_whole_hypotheses_as_lexicon_search_does_and_know_no_other_words(folder, tmp_path):
    recognizer = load(folder, device="cpu")
    words, _ = recognizer.external_models.words(LexiconSearch(), PHONES)
    pruning = LexiconPruning(score_beam=None, min_log_prob=None)
    exact = LexiconSearch(beam=100_000, nbest=20, pruning=pruning, scorers={"ngram": ScorerOptions(scale=0.0)})
    log_probs = recognizer.phone_log_probs(WAVEFORMS)[0][:, :8]
    found = lexicon_search(log_probs, torch.full((8,), 8), words, exact, histories=None)
    named = {"phones": ScorerOptions(path=str(folder / "lexicon.tsv.xz"), scale=1.0)}
    ways = recognizer.external_models.pronunciations(RescoringSearch(scorers=named), PHONES)
    for frames, nbest in zip(log_probs, found, strict=True):
        texts = [[words.words[word] for word in each.labels] for each in nbest]
        scores = word_log_probs(frames.double().numpy(), [[ways[word] for word in text] for text in texts])
        for each, text, score in zip(nbest, texts, scores, strict=True):
            choices = sum(log(len(LEXICON.pronunciations[word])) for word in text)
            assert score == pytest.approx(each.scores["ctc"] - choices, rel=1e-5)
    spelt = RescoringSearch(first=CTCBeamSearch(beam=16), scorers=with_scales({}, {"phones": 1.0}))
    found = recognizer.try_recognize(WAVEFORMS, spelt)
    for nbest in found:
        known = [{*each.text.split()} <= {*LEXICON.pronunciations} for each in nbest]
        said = [each.scores["phones"] > -inf for each in nbest]
        assert said == (known if any(known) else [True] * len(nbest))  # phones say nothing of lists they cannot say
    for name, model, what in (("labels", tiny_acoustic_model(), "no phone head"), ("alone", phone_model(), "lexicon")):
        save_tiny(tmp_path / name, model)
        with pytest.raises(ModelError, match=what):
            load(tmp_path / name, device="cpu").recognize(WAVEFORMS[:1], spelt)


def test_its_scales_are_tuned_on_its_own_lists(folder, tmp_path):
    texts = ("aka ba", "cab", "ba ba aka", "")
    utterances = []
    for number, (waveform, text) in enumerate(zip(WAVEFORMS, texts, strict=False)):
        file = tmp_path / f"{number}.wav"
        sf.write(file, waveform, 16000, subtype="FLOAT")
        utterances.append(Utterance(file, len(waveform) / 16000, text or None, utt_id=str(number)))
    options = LexiconSearch(scorers={"phones": ScorerOptions(path=str(folder / "lexicon.tsv.xz"))}, beam=30)
    grids = chosen_grids(options, {"length": Grid(-1.0, 1.0, 1.0)})
    assert [*grids] == ["ctc", "ngram", "length"]
    searches = list_searches(options, grids, folder)
    sets = lists_from_speech(load(folder, device="cpu"), {"all": utterances}, searches)
    assert all({*h.scores} == {"ctc", "ngram", "length"} for row in sets["all"] for h in row.nbest)
    tuned = tune_scales({"all": sets["all"][:3]}, options, grids)
    scales = tuned.tuned.scales
    assert {name: tuned.options.scale(name) for name in ("ngram", "length")} == {
        name: scales[name] for name in ("ngram", "length")
    }
    assert replace(tuned.options, scorers=options.scorers) == options


def test_files_are_loaded_once(folder):
    models = load(folder, device="cpu").external_models
    model, prior = models.words(LexiconSearch(), PHONES)
    assert prior is None
    named = LexiconSearch(
        scorers={
            "phones": ScorerOptions(path=str(folder / "lexicon.tsv.xz")),
            "ngram": ScorerOptions(path=str(folder / "words.ngram"), scale=0.1),
        },
    )
    assert models.words(named, PHONES)[0] is model


def test_what_is_missing_is_named(folder, tmp_path):
    save_tiny(tmp_path / "labels", tiny_acoustic_model())
    with pytest.raises(ModelError, match="no phone head"):
        load(tmp_path / "labels", device="cpu").transcribe(WAVEFORMS[0], decoding="lexicon")
    save_tiny(tmp_path / "alone", phone_model())
    alone = load(tmp_path / "alone", device="cpu")
    with pytest.raises(ModelError, match=r"there is no lexicon.tsv.xz; .*decoding\.scorers\.phones\.path"):
        alone.transcribe(WAVEFORMS[0], decoding="lexicon")
    search = LexiconSearch(scorers={"phones": ScorerOptions(path=str(folder / "lexicon.tsv.xz"))})
    with pytest.raises(ModelError, match=r"there is no words.ngram; .*decoding\.scorers\.ngram\.path"):
        alone.transcribe(WAVEFORMS[0], decoding=search)
    with pytest.raises(ModelError, match=r"there is no phone_prior.safetensors; .*decoding\.scorers\.prior\.path"):
        load(folder, device="cpu").transcribe(
            WAVEFORMS[0], decoding=LexiconSearch(scorers={"prior": ScorerOptions(scale=-0.1)})
        )


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
    search = LexiconSearch(scorers={"prior": ScorerOptions(scale=-0.5)})
    _, found = recognizer.external_models.words(search, PHONES)
    assert torch.equal(found, prior)
    with pytest.raises(ModelError, match="other"):
        recognizer.external_models.words(search, ("c", "b", "a"))


@pytest.fixture
def drafts(monkeypatch):
    """The drafts that the speech LLM is given, in order."""
    given, speculative = [], decode.speculative

    def noted(decoder, drafts, limits, **settings):
        given.extend(drafts)
        return speculative(decoder, drafts, limits, **settings)

    monkeypatch.setattr(decode, "speculative", noted)
    return given


@pytest.mark.parametrize(
    "draft",
    [
        None,
        LexiconSearch(beam=1, nbest=1, pruning=LexiconPruning(score_beam=None)),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (LexiconSearch(), CTCGreedySearch())),
    ],
)
def test_whatever_the_drafts_a_speech_llm_writes_what_greedy_search_writes(speaking, drafts, draft):
    recognizer = load(speaking, device="cpu")
    own = draft or CTCGreedySearch()
    # Of equal hypotheses the longer list may begin with another one.
    own = own if isinstance(own, CTCGreedySearch) else replace(own, nbest=1)
    texts = [hypothesis.text for hypothesis in recognizer.recognize(WAVEFORMS, own)]
    assert len({*texts}) > 3
    for options in ({}, {"max_labels": 5, "min_labels": 3}):
        expected = recognizer.recognize(WAVEFORMS, GreedySearch(**options))
        for batch_size in (1, 8):
            del drafts[:]
            for start in range(0, len(WAVEFORMS), batch_size):
                batch, places = WAVEFORMS[start : start + batch_size], slice(start, start + batch_size)
                got = recognizer.recognize(batch, SpeculativeSearch(draft=draft, **options))
                for ours, theirs in zip(got, expected[places], strict=True):
                    assert (ours.labels, ours.text, ours.complete) == (theirs.labels, theirs.text, theirs.complete)
                    assert ours.score == pytest.approx(theirs.score, rel=1e-4, abs=1e-4)
                    assert ours.llm_passes <= theirs.llm_passes
            assert drafts == [tiny_units().encode(text) for text in texts]


def test_guards_hold_drafted_texts_against_the_ctc_head_and_not_against_the_drafts(speaking):
    recognizer = load(speaking, device="cpu")
    flagged = 0
    for waveform in WAVEFORMS:
        greedy = recognizer.transcribe(waveform, decoding="greedy")
        drafted = recognizer.transcribe(waveform, decoding="speculative")
        assert (drafted.text, drafted.reasons, drafted.ctc_agreement) == (
            *(greedy.text, greedy.reasons, greedy.ctc_agreement),
        )
        flagged += bool(greedy.flags)
    assert flagged


def test_drafts_of_words_need_no_ctc_head_over_labels(tmp_path):
    save_tiny(tmp_path / "phones", tiny_speech_llm(acoustic=phone_model(ctc_layers=())))
    save_words(tmp_path / "phones")
    recognizer = load(tmp_path / "phones", device="cpu")
    for waveform in WAVEFORMS[:3]:
        drafted = recognizer.transcribe(waveform, decoding=SpeculativeSearch(draft=LexiconSearch()))
        assert drafted.text == recognizer.transcribe(waveform, decoding="greedy").text
    with pytest.raises(ModelError, match="no CTC head"):
        recognizer.transcribe(WAVEFORMS[0], decoding=SpeculativeSearch())
    save_tiny(tmp_path / "labels")
    with pytest.raises(ModelError, match="no phone head"):
        load(tmp_path / "labels", device="cpu").transcribe(
            WAVEFORMS[0], decoding=SpeculativeSearch(draft=LexiconSearch())
        )


@pytest.fixture(scope="module")
def reading(tmp_path_factory):
    """A speech LLM that reads drafts of lexicon search."""
    path = tmp_path_factory.mktemp("reading") / "model"
    save_tiny(path, tiny_speech_llm(acoustic=phone_model(), show_draft=True))
    save_words(path)
    (path / "draft.yaml").write_text("search: lexicon\nbeam: 20\n")
    return path


def test_a_speech_llm_reads_drafts_whatever_they_are_batched_with(reading, tmp_path):
    recognizer = load(reading, device="cpu")
    model, units = recognizer.loaded.model, tiny_units()
    drafts = [each.text for each in recognizer.recognize(WAVEFORMS, LexiconSearch(beam=20, nbest=1))]
    assert len({*drafts}) > 3
    together = recognizer.recognize(WAVEFORMS, "greedy")
    for waveform, draft, found in zip(WAVEFORMS, drafts, together, strict=True):
        encoded = recognizer.encode([waveform]).encoded
        decoder = model.decoder(encoded, [units.encode(draft)])
        room = -(-len(units.encode(draft)) // DRAFT_ROOM) * DRAFT_ROOM
        assert int(decoder.prefix_lengths) == int(model.prefix(encoded, [[]]).lengths) + room
        limit = [label_limit(len(waveform) / 16000, recognizer.loaded.trained_on)]
        with torch.inference_mode():
            ((expected,),) = greedy(decoder, Limits(limit))
        assert found.labels == expected.labels
    copied = tmp_path / "copied"
    shutil.copytree(reading, copied)
    (copied / "draft.yaml").write_text("search: ctc_greedy\n")
    assert [each.labels for each in load(copied, device="cpu").recognize(WAVEFORMS, "greedy")] != [
        each.labels for each in together
    ]


def test_a_merged_adapter_reads_the_drafts_of_its_base(reading, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(reading, base)
    (base / "other").mkdir()
    (base / "words.ngram").rename(base / "other" / "ngram.ngram")
    (base / "draft.yaml").write_text("search: lexicon\nbeam: 20\nngram: other/ngram.ngram\n")
    make_adapter(base, tmp_path / "adapter")
    merge_adapter(base, tmp_path / "adapter", tmp_path / "merged")
    adapted = load(base, device="cpu", adapter=tmp_path / "adapter").recognize(WAVEFORMS, "greedy")
    merged = load(tmp_path / "merged", device="cpu").recognize(WAVEFORMS, "greedy")
    assert [each.labels for each in merged] == [each.labels for each in adapted]
    assert len({each.labels for each in merged}) > 3


@pytest.mark.parametrize("draft", [None, CTCGreedySearch()])
def test_what_it_reads_is_also_what_it_probably_writes(reading, drafts, draft):
    recognizer = load(reading, device="cpu")
    own = draft or LexiconSearch(beam=20, nbest=1)
    texts = [each.text for each in recognizer.recognize(WAVEFORMS, own)]
    got = recognizer.recognize(WAVEFORMS, SpeculativeSearch(draft=draft))
    assert drafts == [tiny_units().encode(text) for text in texts]
    assert [each.labels for each in got] == [each.labels for each in recognizer.recognize(WAVEFORMS, "greedy")]


@pytest.mark.parametrize("search", ["beam", "joint", "joint_time_sync", "sampling"])
def test_every_search_of_the_speech_llm_reads_drafts(reading, search):
    recognizer = load(reading, device="cpu")
    alone = [recognizer.recognize([waveform], search)[0].labels for waveform in WAVEFORMS[:3]]
    assert [each.labels for each in recognizer.recognize(WAVEFORMS[:3], search)] == alone
    lists = recognizer.try_recognize(
        WAVEFORMS[:2], RescoringSearch(first=LexiconSearch(), scorers={"speech_llm": ScorerOptions(1.0)})
    )
    assert all("speech_llm" in each.scores for nbest in lists for each in nbest)
    found = attention_weights(recognizer, WAVEFORMS[0])
    assert found.weights.shape[1:] == (len(found.written), len(found.read))


def test_without_its_drafts_the_llm_is_not_asked(reading, tmp_path):
    copied = tmp_path / "copied"
    shutil.copytree(reading, copied)
    (copied / "draft.yaml").unlink()
    recognizer = load(copied, device="cpu")
    with pytest.raises(ModelError, match=r"no draft\.yaml"):
        recognizer.transcribe(WAVEFORMS[0], decoding="greedy")
    words = recognizer.transcribe(WAVEFORMS[0], decoding="lexicon")
    assert words.text == load(reading, device="cpu").transcribe(WAVEFORMS[0], decoding="lexicon").text
