import shutil

import pytest

from kikitori import loading
from kikitori.errors import ConfigError, ModelError
from kikitori.loading import BUNDLED, find_model, load, with_decoder
from kikitori.model.published.part import PARTS
from kikitori.recognizer import PLAIN
from kikitori.search.options import CTCGreedySearch, GreedySearch, JointSearch, RescoringSearch, asked_decoder
from tests.tiny import tiny_waveforms
from tests.two_decoders import WHISPER, save_two_decoders

WAVEFORMS = tiny_waveforms(2)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with two decoders."""
    root = tmp_path_factory.mktemp("two")
    save_two_decoders(root / "two", root / "work")
    return root / "two"


def test_our_models_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "CHECKOUT", tmp_path / "models")
    ours = tmp_path / "models" / "mini-xx"
    assert find_model("mini-xx") == "mini-xx"
    ours.mkdir(parents=True)
    assert find_model("mini-xx") == "mini-xx"  # a folder without a model
    (ours / "config.json").write_text("{}")
    assert find_model("mini-xx") == ours
    assert find_model("someone/mini-xx") == "someone/mini-xx"
    assert find_model("mini-xx/speech_llm") == ours / "speech_llm"  # not from the hub
    (ours / "speech_llm").mkdir()
    (ours / "speech_llm" / "config.json").write_text('{"base": {"name": ".."}, "model_type": "kikitori_speech_llm"}')
    assert find_model("mini-xx/speech_llm") == find_model("mini-xx", "speech_llm") == ours / "speech_llm"
    shutil.rmtree(ours / "speech_llm")
    assert find_model(ours) == ours
    assert find_model("tiny-en") == find_model(None) == BUNDLED
    (tmp_path / "mini-xx").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_model("mini-xx") == "mini-xx"  # the one that lies here


def test_a_hub_id_is_looked_for_among_the_parts_that_lie_here(two, tmp_path, monkeypatch):
    monkeypatch.setenv(PARTS, str(two.parent))
    assert find_model("someone/two") == two
    assert find_model("someone/two", "speech_llm") == find_model("someone/two/speech_llm") == two / "speech_llm"
    for elsewhere in ("someone/three", "someone/three/speech_llm", "./runs/two", "/somewhere/two", "a/b/two"):
        assert find_model(elsewhere) == elsewhere
    (tmp_path / "someone" / "two").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert find_model("someone/two") == "someone/two"  # the one that lies here


def test_a_run_folder_stands_for_what_it_exported(tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    assert find_model(tmp_path / "run") == tmp_path / "run" / "model"
    assert find_model(tmp_path / "run" / "model") == tmp_path / "run" / "model"


def test_a_run_without_a_model_says_what_to_do(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("recipe.yaml", "environment.json"):
        (run / name).touch()
    with pytest.raises(ModelError, match=r"run: the training has not finished, .* kikitori train .*--resume"):
        find_model(run)
    (run / "adapter").mkdir()
    with pytest.raises(ModelError, match="run: it holds an adapter; name its base, with --adapter"):
        find_model(run)


def test_a_decoder_is_chosen_by_name_by_options_or_by_file(two, tmp_path):
    yaml = tmp_path / "search.yaml"
    yaml.write_text("search: greedy\ndecoder: speech_llm\n")
    assert load(two, device="cpu").decoder == "encoder_decoder"
    assert load(two, device="cpu").name == "two"
    for search, options in (
        ("joint", {"decoder": "speech_llm"}),
        ("joint", {"decoding": JointSearch(decoder="speech_llm")}),
        ("greedy", {"decoding": str(yaml)}),
        ("greedy", {"decoding": "greedy", "decoder": "speech_llm"}),
    ):
        found = load(two, device="cpu", **options)
        assert (found.decoder, found.name, found.decoding.search) == ("speech_llm", "two/speech_llm", search)
    for wrong in ({"decoder": "encoder_decoder"}, {"decoding": GreedySearch(decoder="encoder_decoder")}):
        with pytest.raises(ModelError, match="there is no encoder_decoder, but speech_llm"):
            load(two / "speech_llm", **wrong)


def test_an_override_asks_for_a_decoder_too():
    ask = "decoding.decoder=speech_llm"
    assert asked_decoder(None) is asked_decoder("joint") is asked_decoder(CTCGreedySearch()) is None
    assert asked_decoder(None, [ask]) == asked_decoder("rescoring", ["decoding.beam=2", ask]) == "speech_llm"
    for search, override in (("ctc_greedy", ask), (None, "decoding.decoder=lm")):
        with pytest.raises(ConfigError, match="decoder"):
            asked_decoder(search, [override])


def test_a_search_that_asks_for_the_other_decoder_is_refused(two):
    recognizer = load(two, device="cpu")
    for search in (
        GreedySearch(decoder="speech_llm"),
        RescoringSearch(first=JointSearch(decoder="speech_llm")),
    ):
        with pytest.raises(ModelError, match="the search asks for speech_llm, and encoder_decoder was loaded"):
            recognizer.recognize(WAVEFORMS, search)


@pytest.mark.parametrize(("inner", "other"), [("", "speech_llm"), ("speech_llm", "encoder_decoder")])
def test_settings_of_one_decoder_that_ask_for_the_other_are_named(two, tmp_path, inner, other):
    folder = shutil.copytree(two, tmp_path / "two") / inner
    (folder / "decoding.yaml").write_text(f"search: greedy\ndecoder: {other}\n")
    with pytest.raises(ConfigError, match=f"decoding.yaml: decoder: {other} is not the decoder of this folder"):
        load(folder, device="cpu")


def test_two_decoders_share_encoder_and_heads(two):
    first = load(two, device="cpu")
    alone = load(two, device="cpu", decoder="speech_llm")
    before = [first.recognize(WAVEFORMS, search) for search in ("greedy", "ctc_greedy")]
    second = with_decoder(first, "speech_llm")
    assert second.loaded.model.acoustic is first.loaded.model.acoustic
    assert (second.decoder, second.name, second.folder) == ("speech_llm", "two/speech_llm", two / "speech_llm")
    assert second.decoding == JointSearch()
    assert [first.recognize(WAVEFORMS, search) for search in ("greedy", "ctc_greedy")] == before
    for search in ("greedy", "joint", "ctc_greedy"):
        found = second.recognize(WAVEFORMS, search)
        assert [each.labels for each in found] == [each.labels for each in alone.recognize(WAVEFORMS, search)]
    assert with_decoder(first, "encoder_decoder") is first
    for other in (alone, load(two / WHISPER, device="cpu")):
        asked = "speech_llm" if other.decoder == "encoder_decoder" else "encoder_decoder"
        with pytest.raises(ModelError, match=f"no {asked}"):
            with_decoder(other, asked)


def test_a_second_decoder_has_times_of_words(two):
    recognizer = load(two, device="cpu", decoder="speech_llm", decoding="greedy", guards=PLAIN)
    found = recognizer.transcribe(WAVEFORMS[1], word_times=True)
    assert [each.word for each in found.words] == found.text.split() != []
