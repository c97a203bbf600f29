import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch

import kikitori
from kikitori.data.speech import pad_waveforms
from kikitori.errors import AudioError, ConfigError, ModelError
from kikitori.loading import load
from kikitori.model.safety.config import quiet_transformers
from kikitori.recognizer import CAREFUL, PLAIN
from kikitori.scorers.options import LMOptions, ScorerOptions, with_scales
from kikitori.scorers.prior import count_prior, save_prior
from kikitori.search.guards import NO_SPEECH, REPLACED, Guards
from kikitori.search.options import (
    CTCBeamSearch,
    CTCGreedySearch,
    DelayedFusionSearch,
    GreedySearch,
    RescoringSearch,
    SamplingSearch,
    ShallowFusionSearch,
    SpeculativeSearch,
)
from kikitori.search.pruning import FramePruning
from kikitori.transcript import LENGTH_LIMIT_FLAG
from tests.crossed import crossed
from tests.noise import soundless
from tests.tiny import (
    save_tiny,
    save_tiny_llm,
    tiny_acoustic_model,
    tiny_bpe,
    tiny_gpt2,
    tiny_llm,
    tiny_speech_llm,
    tiny_units,
    tiny_waveform,
    tiny_waveforms,
)

WAVEFORMS = tiny_waveforms(12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recogniser") / "tiny"
    save_tiny(path)
    return path


@pytest.fixture(scope="module")
def recognizer(folder):
    return load(folder, device="cpu", guards=PLAIN)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """WAVEFORMS as float files, which hold them bit for bit."""
    path = tmp_path_factory.mktemp("audio")
    for index, waveform in enumerate(WAVEFORMS):
        sf.write(path / f"{index:02}.wav", waveform, 16000, subtype="FLOAT")
    return sorted(path.iterdir())


@pytest.fixture(scope="module")
def expected(recognizer):
    return [recognizer.transcribe(waveform) for waveform in WAVEFORMS]


def test_path_string_bytes_and_array_give_the_same(recognizer, files, expected):
    transcript = expected[3]
    assert transcript.text
    assert recognizer.transcribe(files[3]) == transcript
    assert recognizer.transcribe(str(files[3])) == transcript
    assert recognizer.transcribe(files[3].read_bytes()) == transcript
    assert recognizer.transcribe(WAVEFORMS[3][:, None]) == transcript


def test_transcript_says_what_was_heard(recognizer, expected):
    assert len({transcript.text for transcript in expected}) > 8
    for waveform, transcript in zip(WAVEFORMS, expected, strict=True):
        assert transcript.duration == len(waveform) / 16000
        assert transcript.words == ()
        if transcript.text:
            (segment,) = transcript.segments
            assert (segment.start, segment.end) == (0.0, round(transcript.duration, 3))
            assert segment.text == transcript.text
        else:
            assert transcript.segments == ()
    (hypothesis,) = recognizer.recognize([WAVEFORMS[3]])
    assert hypothesis.text == recognizer.loaded.units.decode(hypothesis.labels) == expected[3].text
    assert hypothesis.llm_passes == len(hypothesis.labels) == expected[3].llm_passes


@pytest.mark.parametrize("search", ["beam", "joint", "joint_time_sync"])
def test_searches_of_the_speech_llm_with_their_shares(recognizer, search):
    together = [*recognizer.transcribe_many(WAVEFORMS[:5], decoding=search)]
    assert [recognizer.transcribe(waveform, decoding=search).text for waveform in WAVEFORMS[:5]] == [
        transcript.text for transcript in together
    ]
    assert len({transcript.text for transcript in together}) > 3
    for hypothesis in (each for transcript in together for each in transcript.nbest):
        expected = {"speech_llm", "length"} if search == "beam" else {"speech_llm", "length", "ctc"}
        assert set(hypothesis.scores) == expected
        assert hypothesis.speech_positions > 0
    empty, _ = recognizer.recognize([WAVEFORMS[0][:10], WAVEFORMS[1]], search)
    assert empty.labels == ()


@pytest.mark.parametrize("batch_size", [1, 5, 8, 100])
def test_many_keep_their_order_whatever_the_batch(recognizer, files, expected, batch_size):
    assert list(recognizer.transcribe_many(files, batch_size=batch_size)) == expected


@pytest.mark.parametrize("encoder", ["parakeet", "whisper"])
def test_other_families_keep_their_text_in_any_batch(encoder, tmp_path):
    save_tiny(tmp_path, tiny_speech_llm(encoder, "qwen2"))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    alone = list(recognizer.transcribe_many(WAVEFORMS, batch_size=1))
    assert list(recognizer.transcribe_many(iter(WAVEFORMS), batch_size=9)) == alone
    assert len({transcript.text for transcript in alone}) > 7


@pytest.mark.parametrize("interface", ["merged_attention", "cross_attention"])
def test_other_interfaces_keep_their_text_in_any_batch(interface, tmp_path):
    save_tiny(tmp_path, tiny_speech_llm(llm="llama", interface=interface))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    alone = list(recognizer.transcribe_many(WAVEFORMS, batch_size=1))
    assert list(recognizer.transcribe_many(iter(WAVEFORMS), batch_size=9)) == alone
    assert len({transcript.text for transcript in alone}) > 7
    assert all(transcript.llm_passes > 0 for transcript in alone if transcript.text)


def test_input_is_read_as_it_is_needed(recognizer):
    endless = itertools.cycle(WAVEFORMS)
    first = list(itertools.islice(recognizer.transcribe_many(endless, batch_size=2), 3))
    assert len(first) == 3


def test_an_unreadable_file_stops_many_but_not_try(recognizer, files, expected, tmp_path):
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF nothing")
    audio = [*files[:3], broken, tmp_path / "missing.wav", np.empty(0, np.float32), *files[3:6]]
    with pytest.raises(AudioError, match="broken"):
        list(recognizer.transcribe_many(audio, batch_size=2))
    results = list(recognizer.try_transcribe_many(audio, batch_size=2))
    assert results[:3] + results[6:] == expected[:6]
    assert [type(result) for result in results[3:6]] == [AudioError] * 3
    assert "missing.wav" in str(results[4])
    with pytest.raises(AudioError, match="missing"):
        recognizer.transcribe(tmp_path / "missing.wav")
    assert list(recognizer.try_transcribe_many([broken, broken], batch_size=2))[1].where == str(broken)


def test_those_before_an_unreadable_file_are_given(recognizer, files, expected, tmp_path):
    given = []
    with pytest.raises(AudioError):
        given.extend(recognizer.transcribe_many([*files[:3], tmp_path / "missing.wav"], batch_size=2))
    assert given == expected[:3]


@pytest.mark.parametrize(
    "compression",
    [
        ("drop", "average"),
        *(pytest.param(each, marks=pytest.mark.slow) for each in (("drop", "keep"), ("keep", "weighted"))),
    ],
)
def test_compressed_speech_keeps_its_text_in_any_batch(compression, tmp_path):
    save_tiny(tmp_path, tiny_speech_llm(bridge="ctc_compress", compression=compression))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    alone = list(recognizer.transcribe_many(WAVEFORMS, batch_size=1))
    assert list(recognizer.transcribe_many(WAVEFORMS, batch_size=5)) == alone
    assert len({transcript.text for transcript in alone}) > 7


@pytest.mark.parametrize("bridge", ["conv", "stack", "identity", "ctc_compress"])
def test_hypotheses_say_how_many_positions_the_speech_took(bridge, tmp_path):
    model = save_tiny(tmp_path, tiny_speech_llm(bridge=bridge))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    with torch.no_grad():
        encoded = model.acoustic.encode(*pad_waveforms(WAVEFORMS[:5]))
        _, lengths = model.speech_prompt(encoded)
    found = [hypothesis.speech_positions for hypothesis in recognizer.recognize(WAVEFORMS[:5])]
    assert found == lengths.tolist()
    for waveform, decoding in ((WAVEFORMS[0], "ctc_greedy"), (np.zeros(10, np.float32), "greedy")):
        (hypothesis,) = recognizer.recognize([waveform], decoding)
        assert hypothesis.speech_positions is None


@pytest.mark.parametrize(
    ("family", "bridge"), crossed(("gpt_neox", "qwen2", "llama", "gpt2"), ("stack", "ctc_compress"))
)
def test_too_long_for_the_llm_is_an_error_of_that_recording(family, bridge, tmp_path):
    units = tiny_units()
    llm = tiny_gpt2(units.size, 80) if family == "gpt2" else tiny_llm(family, units.size)
    llm.config.max_position_embeddings = 80
    model = tiny_speech_llm(bridge=bridge, body=llm)
    save_tiny(tmp_path, model)
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    loaded = replace(recognizer.loaded, trained_on=replace(recognizer.loaded.trained_on, max_seconds=6.0))
    recognizer = replace(recognizer, loaded=loaded)
    long = tmp_path / "long.wav"
    sf.write(long, tiny_waveform(6.0), 16000, subtype="FLOAT")
    results = list(recognizer.try_transcribe_many([WAVEFORMS[2], long, WAVEFORMS[3]], batch_size=3))
    assert [results[0], results[2]] == [recognizer.transcribe(waveform) for waveform in WAVEFORMS[2:4]]
    assert isinstance(results[1], AudioError)
    message = str(results[1])
    assert message.startswith(f"{long}: 6.0 s of speech take ")
    assert message.endswith("the LLM has 80 positions; split the recording or lower decoding.max_labels")
    with pytest.raises(AudioError, match=r"^6\.0 s of speech"):
        recognizer.recognize([tiny_waveform(6.0)])
    assert recognizer.transcribe(long, decoding="ctc_greedy").duration == 6.0


@pytest.mark.parametrize("family", ["gpt_neox", "gpt2"])
def test_the_last_position_of_the_llm_can_be_used(family, tmp_path):
    units, waveform = tiny_units(), tiny_waveform(0.6)
    llm = tiny_gpt2(units.size, 60) if family == "gpt2" else tiny_llm(family, units.size)
    llm.config.max_position_embeddings = 60
    llm.get_output_embeddings().weight.data[2] = 0.0  # no end before the limit
    save_tiny(tmp_path, tiny_speech_llm(body=llm))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    (hypothesis,) = recognizer.recognize([waveform], GreedySearch(max_labels=1))
    room = 60 - hypothesis.speech_positions - 1  # the prompt is one label
    (hypothesis,) = recognizer.recognize([waveform], GreedySearch(max_labels=room))
    assert len(hypothesis.labels) == room
    with pytest.raises(AudioError, match="the LLM has 60 positions"):
        recognizer.recognize([waveform], GreedySearch(max_labels=room + 1))


@pytest.mark.parametrize("interface", ["merged_attention", "cross_attention"])
def test_speech_in_a_memory_leaves_the_llm_its_positions(interface, tmp_path):
    llm = tiny_llm("llama", tiny_units().size)
    llm.config.max_position_embeddings = 40
    save_tiny(tmp_path, tiny_speech_llm(body=llm, interface=interface))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    (hypothesis,) = recognizer.recognize([tiny_waveform(6.0)], GreedySearch(max_labels=39))
    assert hypothesis.speech_positions > 40
    with pytest.raises(AudioError, match=r"6\.0 s of speech take 1 LLM positions .* the LLM has 40 positions"):
        recognizer.recognize([tiny_waveform(6.0)], GreedySearch(max_labels=40))


@pytest.mark.parametrize("search", ["greedy", "speculative", "ctc_greedy"])
def test_next_to_nothing_is_empty_text(recognizer, search):
    for num_samples in (1, 160, 399):
        buffer = io.BytesIO()
        sf.write(buffer, np.full(num_samples, 0.1, np.float32), 16000, format="WAV")
        transcript = recognizer.transcribe(buffer.getvalue(), decoding=search)
        assert (transcript.text, transcript.segments, transcript.flags) == ("", (), ())
        assert transcript.duration == num_samples / 16000
        assert transcript.llm_passes == 0
    for num_samples in (400, 401, 720):
        recognizer.transcribe(tiny_waveform(num_samples / 16000), decoding=search)


def test_next_to_nothing_does_not_disturb_its_batch(recognizer, expected):
    audio = [WAVEFORMS[0], np.zeros(1, np.float32), WAVEFORMS[1], np.zeros(160, np.float32)]
    results = list(recognizer.transcribe_many(audio))
    assert [results[0], results[2]] == expected[:2]
    assert [results[1].text, results[3].text] == ["", ""]


def test_silence_does_not_crash(recognizer):
    assert isinstance(recognizer.transcribe(np.zeros(16000, np.float32)).text, str)


def test_ctc_greedy_reads_the_ctc_head(recognizer, expected):
    results = list(recognizer.transcribe_many(WAVEFORMS, decoding="ctc_greedy"))
    assert [result.text for result in results] != [result.text for result in expected]
    assert {result.llm_passes for result in results} == {0}
    assert all(LENGTH_LIMIT_FLAG not in result.flags for result in results)
    assert results == list(recognizer.transcribe_many(WAVEFORMS, decoding=CTCGreedySearch(), batch_size=1))
    with torch.no_grad():
        log_probs, lengths = recognizer.loaded.model.acoustic(*pad_waveforms(WAVEFORMS[:1]))
    path = [label for label, _ in itertools.groupby(log_probs[0, : lengths[0]].argmax(-1).tolist())]
    blank = log_probs.shape[2] - 1
    assert results[0].text == recognizer.loaded.units.decode([label for label in path if label != blank])


def test_ctc_beam(recognizer):
    wide = CTCBeamSearch(nbest=5)
    alone = [recognizer.transcribe(waveform, decoding=wide) for waveform in WAVEFORMS]
    for batch_size in (4, 16):
        for one, many in zip(
            alone, recognizer.transcribe_many(WAVEFORMS, decoding=wide, batch_size=batch_size), strict=True
        ):
            assert (one.text, one.segments, one.flags) == (many.text, many.segments, many.flags)
            assert [h.labels for h in one.nbest] == [h.labels for h in many.nbest]
            assert [h.score for h in one.nbest] == pytest.approx([h.score for h in many.nbest], rel=1e-5)
    backwards = list(recognizer.transcribe_many(WAVEFORMS[::-1], decoding=wide, batch_size=4))[::-1]
    assert [transcript.text for transcript in backwards] == [transcript.text for transcript in alone]
    assert any(len(transcript.nbest) == 5 for transcript in alone)
    for transcript in alone:
        scores = [hypothesis.score for hypothesis in transcript.nbest]
        assert scores == sorted(scores, reverse=True)
        for hypothesis in transcript.nbest:
            assert hypothesis.scores == {"ctc": hypothesis.score}
            assert hypothesis.text == recognizer.loaded.units.decode(hypothesis.labels)
        assert transcript.text == (transcript.nbest[0].text if transcript.nbest else transcript.text)
    assert recognizer.transcribe(WAVEFORMS[0], decoding=CTCBeamSearch(nbest=1)).nbest == ()


@pytest.fixture(scope="module")
def combined(tmp_path_factory):
    """A recogniser folder with a language model and a prior."""
    path = tmp_path_factory.mktemp("combined")
    save_tiny(path, tiny_acoustic_model())
    save_tiny_llm(path / "lm", "llama")
    save_prior(path / "prior.safetensors", count_prior([[5, 6, 7]], tiny_units().size))
    (path / "decoding.yaml").write_text("search: shallow_fusion\nprior_scale: 0.1\n")
    return path


def test_shallow_fusion(combined):
    recognizer = load(combined, device="cpu")
    alone = [recognizer.transcribe(waveform) for waveform in WAVEFORMS]
    assert len({transcript.text for transcript in alone}) > 7
    for batch_size in (4, 16):
        many = list(recognizer.transcribe_many(WAVEFORMS[::-1], batch_size=batch_size))[::-1]
        for one, other in zip(alone, many, strict=True):
            assert (one.text, one.llm_passes, one.flags) == (other.text, other.llm_passes, other.flags)
            assert [h.labels for h in one.nbest] == [h.labels for h in other.nbest]
            assert [h.score for h in one.nbest] == pytest.approx([h.score for h in other.nbest], rel=1e-5)
    assert any(transcript.llm_passes > 3 for transcript in alone)
    for transcript in alone:
        for each in transcript.nbest:
            shares = each.scores
            assert [*shares] == ["ctc", "lm", "length", "prior"]
            assert each.score == pytest.approx(shares["ctc"] + 0.5 * shares["lm"] - 0.1 * shares["prior"])
            assert shares["length"] == len(each.labels)
    acoustic = recognizer.transcribe_many(WAVEFORMS, decoding="ctc_beam")
    silent = recognizer.transcribe_many(
        WAVEFORMS, decoding=ShallowFusionSearch(scorers={"lm": ScorerOptions(scale=0.0)})
    )
    assert [transcript.text for transcript in silent] == [transcript.text for transcript in acoustic]


def test_rescoring_with_the_internal_lm_and_a_prior(combined, tmp_path):
    save_tiny(tmp_path)
    recognizer = load(tmp_path, device="cpu")
    prior = {"prior": ScorerOptions(path=str(combined / "prior.safetensors"))}
    scales = {"speech_llm": 0.5, "ilm": -0.3, "prior": -0.2}
    search = RescoringSearch(first=CTCBeamSearch(nbest=4), scorers=with_scales(prior, scales))
    for transcript in recognizer.transcribe_many(WAVEFORMS[:4], decoding=search):
        for each in transcript.nbest:
            assert {*each.scores} == {"ctc", "speech_llm", "ilm", "prior"}
            expected = each.scores["ctc"] + sum(scale * each.scores[name] for name, scale in scales.items())
            assert each.score == pytest.approx(expected)
    with pytest.raises(ConfigError, match=r"scorers\.ilm: no such scorer"):
        load(combined, device="cpu").transcribe(
            WAVEFORMS[0], decoding=RescoringSearch(scorers={"ilm": ScorerOptions(1.0)})
        )


def test_shallow_fusion_in_bfloat16(combined):
    recognizer = load(combined, device="cpu", dtype="bfloat16")
    assert any(recognizer.transcribe(waveform).text for waveform in WAVEFORMS[:6])


def test_shallow_fusion_beyond_what_the_llm_can_read(combined, tmp_path):
    with quiet_transformers():
        tiny_gpt2(tiny_units().size, max_positions=4).save_pretrained(tmp_path)
    tiny_units().save(tmp_path)
    search = ShallowFusionSearch(scorers={"lm": ScorerOptions(path=str(tmp_path)), "length": ScorerOptions(scale=50.0)})
    recognizer = load(combined, device="cpu")
    found = [recognizer.transcribe(waveform, decoding=search) for waveform in WAVEFORMS[:8]]
    assert max(len(h.labels) for transcript in found for h in transcript.nbest) == 3
    assert any(LENGTH_LIMIT_FLAG in transcript.flags for transcript in found)


def test_delayed_fusion(combined, tmp_path):
    acoustic, path = tiny_acoustic_model(), tmp_path / "lm"
    for head in acoustic.ctc_heads.values():
        head.linear.bias.data[tiny_units().special_id("▁")] += 4.0  # so that there are words
    save_tiny(tmp_path / "model", acoustic)
    save_tiny_llm(path, "llama", units=tiny_bpe())
    own = str(combined / "prior.safetensors")
    search = DelayedFusionSearch(
        trigger=2, beam=6, scorers={"lm": ScorerOptions(path=str(path)), "prior": ScorerOptions(path=own, scale=-0.1)}
    )
    recognizer = load(tmp_path / "model", device="cpu")
    alone = [recognizer.transcribe(waveform, decoding=search) for waveform in WAVEFORMS]
    assert len({transcript.text for transcript in alone}) > 7
    assert any(transcript.llm_passes > 1 for transcript in alone)
    for batch_size in (4, 16):
        many = list(recognizer.transcribe_many(WAVEFORMS[::-1], batch_size=batch_size, decoding=search))[::-1]
        for one, other in zip(alone, many, strict=True):
            assert (one.text, one.llm_passes, one.flags) == (other.text, other.llm_passes, other.flags)
            assert [h.labels for h in one.nbest] == [h.labels for h in other.nbest]
            assert [h.score for h in one.nbest] == pytest.approx([h.score for h in other.nbest], rel=1e-5)
    lm = recognizer.external_models.text_lm(LMOptions(str(path)))
    for transcript in alone[:4]:
        for each in transcript.nbest:
            ((llm,),) = lm.log_probs([[lm.units.encode(each.text)]]).scores
            assert each.scores["lm"] == pytest.approx(llm, rel=1e-4)
            assert each.score == pytest.approx(each.scores["ctc"] + 0.5 * llm - 0.1 * each.scores["prior"], rel=1e-4)
    default = load(combined, device="cpu").transcribe(WAVEFORMS[0], decoding="delayed_fusion")
    assert default.nbest[0].scores.keys() == {"ctc", "lm", "length", "prior"}


def test_the_best_path_is_the_narrowest_beam_of_the_best_paths(recognizer):
    narrow = CTCBeamSearch(
        beam=1, pruning=FramePruning(recombine="max", score_beam=None, frame_labels=1, min_log_prob=None)
    )
    batch = recognizer.recognize(WAVEFORMS[:4], "ctc_greedy")
    for greedy, beam in zip(batch, recognizer.recognize(WAVEFORMS[:4], narrow), strict=True):
        assert beam.score <= greedy.score + 1e-3
    for greedy, beam in zip(
        batch, recognizer.recognize(WAVEFORMS[:4], CTCBeamSearch(pruning=FramePruning(recombine="max"))), strict=True
    ):
        assert beam.score == pytest.approx(greedy.score, rel=1e-4)  # Viterbi's best path is CTC's greedy one
        assert beam.labels == greedy.labels


def test_every_hypothesis_has_its_shares(recognizer):
    for search, scorer in (
        ("greedy", "speech_llm"),
        ("sampling", "speech_llm"),
        ("ctc_greedy", "ctc"),
        ("ctc_beam", "ctc"),
    ):
        for hypothesis in recognizer.recognize(WAVEFORMS[:3], search):
            assert hypothesis.scores == {scorer: hypothesis.score}


@pytest.mark.parametrize("draft", [CTCGreedySearch(), CTCBeamSearch(beam=8)], ids=lambda draft: draft.search)
def test_speculative_search_writes_what_greedy_search_writes(recognizer, draft):
    for options in ({}, {"max_labels": 5, "min_labels": 3}):
        expected = recognizer.recognize(WAVEFORMS, GreedySearch(**options))
        for batch_size in (1, 8):
            got = []
            for start in range(0, len(WAVEFORMS), batch_size):
                batch = WAVEFORMS[start : start + batch_size]
                got += recognizer.recognize(batch, SpeculativeSearch(draft=draft, **options))
            for ours, theirs in zip(got, expected, strict=True):
                assert ours.scores == {"speech_llm": ours.score}
                assert ours.llm_passes <= theirs.llm_passes
                assert ours.score == pytest.approx(theirs.score, rel=1e-4, abs=1e-4)
                assert ours.confidence == pytest.approx(theirs.confidence, rel=1e-4)
                unequal = {"score": 0.0, "scores": {}, "llm_passes": 0, "confidence": None}
                assert replace(ours, **unequal) == replace(theirs, **unequal)


@pytest.fixture(scope="module")
def rescoring(tmp_path_factory):
    lm = tmp_path_factory.mktemp("lm")
    save_tiny_llm(lm, "llama")
    scales = {"lm": 0.4, "speech_llm": 0.2, "length": 0.1}
    scorers = with_scales({"lm": ScorerOptions(path=str(lm))}, scales)
    return RescoringSearch(first=CTCBeamSearch(beam=8, nbest=6), scorers=scorers)


def test_rescoring(recognizer, rescoring):
    alone = [recognizer.transcribe(waveform, decoding=rescoring) for waveform in WAVEFORMS]
    first = [recognizer.transcribe(waveform, decoding=rescoring.first) for waveform in WAVEFORMS]
    assert any(one.text != other.text for one, other in zip(alone, first, strict=True))
    for batch_size in (4, 16):
        many = recognizer.transcribe_many(WAVEFORMS, decoding=rescoring, batch_size=batch_size)
        for one, other in zip(alone, many, strict=True):
            assert [h.labels for h in one.nbest] == [h.labels for h in other.nbest]
            assert [h.score for h in one.nbest] == pytest.approx([h.score for h in other.nbest], rel=1e-5)
    for one, before in zip(alone, first, strict=True):
        assert {h.labels for h in one.nbest} == {h.labels for h in before.nbest}
        for hypothesis in one.nbest:
            shares = hypothesis.scores
            assert shares.keys() == {"ctc", "lm", "speech_llm", "length"}
            expected = shares["ctc"] + 0.4 * shares["lm"] + 0.2 * shares["speech_llm"] + 0.1 * len(hypothesis.labels)
            assert hypothesis.score == pytest.approx(expected)
    assert sum(isinstance(key, LMOptions) for key in recognizer.external_models._loaded) == 1


def test_rescoring_without_scales_is_the_first_search(recognizer, rescoring):
    nothing = replace(
        rescoring,
        scorers=with_scales(rescoring.scorers, dict.fromkeys(("ctc", "lm", "speech_llm", "length"), 0.0)),
    )
    results = recognizer.try_recognize(WAVEFORMS[:8], nothing)
    for result, first in zip(results, recognizer.try_recognize(WAVEFORMS[:8], rescoring.first), strict=True):
        assert [h.labels for h in result] == [h.labels for h in first]
        assert {h.score for h in result} == {0.0}
        assert [h.scores["ctc"] for h in result] == pytest.approx([h.scores["ctc"] for h in first], rel=1e-5)


def test_the_share_of_the_speech_llm_is_that_of_teacher_forcing(recognizer):
    search = RescoringSearch(first=CTCBeamSearch(beam=8, nbest=4), scorers={"speech_llm": ScorerOptions(1.0)})
    for waveform in WAVEFORMS[:6]:
        (nbest,) = recognizer.try_recognize([waveform], search)
        assert all(h.speech_positions == nbest[0].speech_positions for h in nbest)
        encoded = recognizer.loaded.model.acoustic.encode(*pad_waveforms([waveform]))
        with torch.inference_mode():
            logits, labels = recognizer.loaded.model.label_logits(encoded, [nbest[0].labels])
        expected = logits.log_softmax(dim=-1).gather(1, labels[:, None]).sum()
        assert nbest[0].scores["speech_llm"] == pytest.approx(float(expected), abs=1e-3)


def test_rescoring_an_acoustic_model(tmp_path, rescoring):
    save_tiny(tmp_path, tiny_acoustic_model())
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    with pytest.raises(ConfigError, match=r"scorers.speech_llm: no such scorer"):
        recognizer.transcribe(WAVEFORMS[0], decoding=rescoring)
    without = replace(rescoring, scorers={"lm": rescoring.scorers["lm"]})
    assert recognizer.transcribe(WAVEFORMS[0], decoding=without).nbest[0].scores.keys() == {"ctc", "lm"}


def test_acoustic_model_alone(tmp_path):
    save_tiny(tmp_path, tiny_acoustic_model())
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    assert recognizer.decoding == CTCGreedySearch()
    assert recognizer.transcribe(WAVEFORMS[0]).text
    for search in ("greedy", "sampling", "speculative", "beam", "joint", "joint_time_sync"):
        with pytest.raises(ModelError, match=f"has no LLM for '{search}'; use ctc_greedy"):
            recognizer.transcribe(WAVEFORMS[0], decoding=search)


def test_without_ctc_head(tmp_path):
    save_tiny(tmp_path, tiny_speech_llm(ctc_layers=()))
    recognizer = load(tmp_path, device="cpu", guards=PLAIN)
    assert recognizer.transcribe(WAVEFORMS[0]).duration
    for search in ("ctc_greedy", "ctc_beam", "shallow_fusion", "speculative", "joint", "joint_time_sync"):
        with pytest.raises(ModelError, match="no CTC head; use greedy"):
            recognizer.transcribe(WAVEFORMS[0], decoding=search)


def test_flags(recognizer, expected):
    limited = [transcript for transcript in expected if LENGTH_LIMIT_FLAG in transcript.flags]
    assert 0 < len(limited) < len(expected)
    assert all(t.llm_passes >= 20 for t in limited)
    for transcript in recognizer.transcribe_many(WAVEFORMS, decoding=GreedySearch(max_labels=1)):
        assert transcript.llm_passes <= 1


def test_the_limit_follows_the_duration_and_the_training_data(recognizer, expected):
    trained_on = replace(recognizer.loaded.trained_on, labels_per_second=100.0)
    longer = replace(recognizer, loaded=replace(recognizer.loaded, trained_on=trained_on))
    for waveform, before in zip(WAVEFORMS, expected, strict=True):
        after = longer.transcribe(waveform)
        if LENGTH_LIMIT_FLAG in before.flags:
            assert before.llm_passes == -(-12 * len(waveform) // 16000) + 20
            assert after.llm_passes > before.llm_passes
        else:
            assert after == before


def test_the_rule_of_the_length_and_the_fewest_labels_are_the_models(recognizer, expected):
    trained_on = replace(recognizer.loaded.trained_on, length_rule="nue_asr", min_labels=6)
    other = replace(recognizer, loaded=replace(recognizer.loaded, trained_on=trained_on))
    for waveform, before in zip(WAVEFORMS, expected, strict=True):
        after = other.transcribe(waveform)
        limit = int(4 * len(waveform) / 16000 + 20.5)
        assert 6 <= after.llm_passes <= limit
        if 6 <= before.llm_passes < limit and not before.flags:
            assert after == before
        assert (LENGTH_LIMIT_FLAG in after.flags) <= (after.llm_passes == limit)
        assert other.transcribe(waveform, decoding=GreedySearch(min_labels=0)).llm_passes <= before.llm_passes
    assert any(transcript.llm_passes < 6 for transcript in expected)


def test_sampling_depends_on_the_audio_and_the_seed_alone(recognizer, expected, files):
    decoding = SamplingSearch(temperature=3.0, top_k=20)
    alone = [recognizer.transcribe(waveform, decoding=decoding) for waveform in WAVEFORMS]
    assert sum(a.text != b.text for a, b in zip(alone, expected, strict=True)) > 9
    for batch_size in (3, 5):
        assert list(recognizer.transcribe_many(files, batch_size=batch_size, decoding=decoding)) == alone
    backwards = recognizer.transcribe_many(WAVEFORMS[::-1], batch_size=5, decoding=decoding)
    assert list(backwards)[::-1] == alone
    others = recognizer.transcribe_many(WAVEFORMS, decoding=replace(decoding, seed=7))
    assert sum(a.text != b.text for a, b in zip(alone, others, strict=True)) > 9
    sharp = SamplingSearch(temperature=1e-6)
    assert list(recognizer.transcribe_many(WAVEFORMS, decoding=sharp)) == expected


def test_bfloat16_runs(folder):
    recognizer = load(folder, device="cpu", dtype="bfloat16")
    for search in (
        "greedy",
        "speculative",
        "ctc_greedy",
        "ctc_beam",
        RescoringSearch(scorers={"speech_llm": ScorerOptions(0.3)}),
    ):
        results = list(recognizer.transcribe_many(WAVEFORMS[:6], decoding=search))
        assert any(result.text for result in results)


def test_decoding_of_the_folder_and_of_the_call(folder, tmp_path):
    save_tiny(tmp_path)
    (tmp_path / "decoding.yaml").write_text("search: ctc_greedy\n")
    assert load(tmp_path, device="cpu", guards=PLAIN).decoding == CTCGreedySearch()
    assert load(tmp_path, device="cpu", decoding="greedy").decoding == GreedySearch()
    assert load(folder, device="cpu", guards=PLAIN).decoding == GreedySearch()
    assert load(folder, device="cpu", decoding=GreedySearch(max_labels=2)).decoding.max_labels == 2
    (tmp_path / "decoding.yaml").write_text("search: greedy\nmax_labels: 1\n")
    by_name = load(tmp_path, device="cpu", decoding="greedy")
    assert by_name.decoding == GreedySearch(max_labels=1)
    other = load(tmp_path, device="cpu", decoding="ctc_greedy")
    assert other.decoding == CTCGreedySearch()
    for waveform in WAVEFORMS[:3]:
        assert other.transcribe(waveform, decoding="greedy") == by_name.transcribe(waveform)
        (plain,) = other.recognize([waveform], GreedySearch())
        assert other.recognize([waveform], "greedy") != [plain]
    (tmp_path / "decoding.yaml").write_text("search: beem\n")
    with pytest.raises(ConfigError, match="search"):
        load(tmp_path, device="cpu", guards=PLAIN)
    assert load(tmp_path, device="cpu", decoding="greedy").decoding == GreedySearch()


def test_unknown_search_is_a_config_error(recognizer):
    with pytest.raises(ConfigError, match="'beem'"):
        recognizer.transcribe(WAVEFORMS[0], decoding="beem")


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_none_is_refused(recognizer, batch_size):
    with pytest.raises(ConfigError, match="batch_size"):
        list(recognizer.transcribe_many(WAVEFORMS, batch_size=batch_size))


def test_nothing_in_nothing_out(recognizer):
    assert list(recognizer.transcribe_many([])) == []
    assert recognizer.recognize([]) == []


def test_device_and_name(folder, recognizer):
    assert recognizer.name == "tiny"
    assert load(folder).name == "tiny"
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="--device cuda"):
            load(folder, device="cuda")


def test_missing_model(tmp_path):
    with pytest.raises(ModelError, match="no such model folder"):
        load(tmp_path / "nothing")


def test_the_public_door_is_the_same(folder, recognizer, expected):
    assert kikitori.load is load
    assert isinstance(recognizer, kikitori.Recognizer)
    assert kikitori.load(folder, device="cpu", guards=PLAIN).transcribe(WAVEFORMS[3]) == expected[3]


def test_a_runaway_gives_way_to_the_ctc_text_unless_it_is_to_be_kept(folder, expected):
    careful = load(folder, device="cpu")
    transcripts = list(careful.transcribe_many(WAVEFORMS))
    heard = list(careful.transcribe_many(WAVEFORMS, decoding="ctc_greedy"))
    replaced = [row for row, transcript in enumerate(transcripts) if REPLACED in transcript.flags]
    assert len(replaced) > 5
    for row, (transcript, kept) in enumerate(zip(transcripts, expected, strict=True)):
        assert transcript.ctc_agreement == kept.ctc_agreement
        assert transcript.text == (heard[row].text if row in replaced else kept.text)
        if row in replaced:
            assert [hypothesis.text for hypothesis in transcript.nbest] == [heard[row].text, kept.text]
            assert transcript.llm_passes == kept.llm_passes
            assert set(transcript.flags) - {LENGTH_LIMIT_FLAG} == set(transcript.reasons)
    for found in (careful.recognize(WAVEFORMS), [row[0] for row in careful.try_recognize(WAVEFORMS)]):
        assert [hypothesis.text for hypothesis in found] == [kept.text for kept in expected]


@pytest.mark.parametrize("decoding", ["greedy", "sampling", "ctc_greedy", "ctc_beam"])
def test_silence_has_no_text(recognizer, decoding):
    careful = replace(recognizer, guards=CAREFUL)
    for waveform in soundless(1.0).values():
        transcript = careful.transcribe(waveform, decoding=decoding)
        assert (transcript.text, transcript.segments, transcript.flags) == ("", (), (NO_SPEECH,))
        assert transcript.duration == len(waveform) / 16000


def test_a_search_as_it_is_writes_in_silence_too(recognizer):
    for waveform in soundless(1.0).values():
        transcript, found = recognizer.transcribe(waveform), recognizer.recognize([waveform])[0]
        assert found.text == transcript.text != ""
        assert NO_SPEECH in transcript.flags
        assert recognizer.try_recognize([waveform], guards=Guards())[0][0].text == ""


def test_an_utterance_without_finite_numbers_is_named(folder, files):
    broken = load(folder, device="cpu")
    with torch.no_grad():
        broken.loaded.model.llm.get_output_embeddings().weight.fill_(np.nan)
    results = list(broken.try_transcribe_many(files[3:5]))
    for file, result in zip(files[3:5], results, strict=True):
        assert isinstance(result, AudioError)
        assert result.where == file
        assert "infinite numbers" in str(result)
