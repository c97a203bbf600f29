import pytest

from kikitori.errors import DataError
from kikitori.io.progress import no_bar
from kikitori.train.build.corpora import check_speech, load_speech, read_ref, read_transcripts
from kikitori.train.build.task import build_task, build_units
from kikitori.train.recipe.data import ManifestRef
from kikitori.train.tasks.base import BatchPosition
from tests.train.helpers import (
    TEXTS,
    acoustic_recipe,
    make_recipe,
    masked_recipe,
    speech_llm_recipe,
    text_recipe,
    write_corpus,
)


def with_rows(folder, rows, **changes):
    write_corpus(folder, rows)
    return make_recipe(folder, folder, acoustic_recipe(**changes))


def test_the_filter_reports_what_is_left_out_and_why(tmp_path):
    row = {"audio_filepath": "1.wav", "duration": 0.9, "text": "a cat", "split": "train"}
    rows = [
        {**row, "id": "silent", "text": None},
        {**row, "id": "symbols", "text": "!!!"},
        {**row, "id": "short", "duration": 0.05},
        {**row, "id": "long", "duration": 99.0},
        {**row, "id": "gone", "audio_filepath": "gone.wav"},
    ]
    lines = []
    task = build_task(with_rows(tmp_path, rows, data={"on_error": "skip"}), lines.append)
    assert len(task.train.utterances) == len(TEXTS)
    assert lines[1:] == [
        "train: 7 utterances, 0.00 h",
        "train: left out 2: no text (silent, symbols)",
        "train: left out 1: shorter than 0.1 s (short)",
        "train: left out 1: longer than 30 s (long)",
        "train: left out 1: audio file missing (gone)",
        "dev: 2 utterances, 0.00 h",
    ]


LEFT_OUT = (
    {"id": "short", "duration": 0.05, "text": "ß"},
    {"id": "long", "duration": 99.0, "text": "ßß"},
    {"id": "gone", "audio_filepath": "gone.wav", "text": "ßßß"},
    {"id": "apart", "text": "ß ßß ß ßß ß ßßß"},
)


@pytest.mark.parametrize("settings", [{"kind": "characters"}, {"kind": "sentencepiece", "size": 24}])
def test_label_units_are_trained_on_the_rows_that_are_trained_on(tmp_path, settings):
    row = {"audio_filepath": "1.wav", "duration": 0.9, "split": "train"}
    rows = [{**row, **each} for each in LEFT_OUT] + [{**row, "text": "ß ßß ß ßß ß ßßß", "split": "test"}]
    units = {"text_form": "lower", **settings}
    part = {"path": "manifest.jsonl", "split": "train", "exclude_overlap_with": ["test"]}
    noise = {"path": "manifest.jsonl", "split": "test", "nonspeech": True}
    data = {"train": [part, noise], "on_error": "skip"}
    task = build_task(with_rows(tmp_path, rows, units=units, data=data), lambda _: None)
    assert len(task.train.utterances) == len(TEXTS) + 1
    alone = build_units(with_rows(tmp_path / "alone", [], units=units))
    assert task.units.tokenizer.get_vocab() == alone.tokenizer.get_vocab()


def test_label_units_without_a_row_to_train_on_are_refused_with_the_reason(tmp_path):
    lines = []
    with pytest.raises(DataError, match="no utterance is left whose transcript could train label units"):
        build_task(with_rows(tmp_path, [], data={"min_seconds": 9.0}), lines.append)
    assert lines == ["train: 0 utterances, 0.00 h", "train: left out 7: shorter than 9 s (0.wav, 1.wav, 2.wav, ...)"]


def test_label_units_of_a_language_model_know_nothing_of_the_held_out_sentences(tmp_path):
    (tmp_path / "books.txt").write_text("a q\na cat\na dog\nthe z\nthe cat\na bird\n")
    recipe = make_recipe(
        tmp_path, tmp_path, text_recipe(text={"files": ["books.txt"], "transcripts": [], "dev_lines": 2})
    )
    task = build_task(recipe, lambda _: None)
    assert [len(labels) for labels in task.dev] == [4, 6]  # the last two: word mark, unknown
    assert not {"q", "z"} & {*task.units.tokenizer.get_vocab()}


def test_recognised_text_is_counted(tmp_path):
    row = {"audio_filepath": "1.wav", "duration": 0.9, "text": "a cat", "recognized": True, "confidence": -0.1}
    rows = [{**row, "split": split} for split in ("train", "train", "dev")]
    lines = []
    task = build_task(with_rows(tmp_path, rows), lines.append)
    assert lines[1:] == [
        "train: 9 utterances, 0.00 h, of which 2 with recognised text",
        "warning: 1 dev utterances have recognised text; what is scored on them is no error rate",
        "dev: 3 utterances, 0.00 h",
    ]
    assert task.data_counts() == {"utterances": 9, "with_recognized_text": 2}


@pytest.mark.parametrize("split", ["train", "dev"])
def test_a_missing_file_stops_the_run_before_it_starts(tmp_path, split):
    rows = [{"audio_filepath": "gone.wav", "duration": 1.0, "text": "a cat", "split": split}] * 2
    with pytest.raises(DataError, match=r"gone\.wav: no such file \(and 1 more are missing\); .*on_error=skip"):
        build_task(with_rows(tmp_path, rows), lambda _: None)
    lines = []
    task = build_task(with_rows(tmp_path, rows, data={"on_error": "skip"}), lines.append)
    assert any("gone.wav" in line for line in lines)
    assert len(task.dev.utterances) == 2


def test_a_broken_line_stops_or_is_named(tmp_path):
    manifest = write_corpus(tmp_path)
    manifest.write_text(manifest.read_text() + "{broken\n")
    number = len(TEXTS) + 3
    with pytest.raises(DataError, match=rf"manifest\.jsonl:{number}: not JSON"):
        build_task(make_recipe(tmp_path, tmp_path, acoustic_recipe()), lambda _: None)
    lines = []
    build_task(make_recipe(tmp_path, tmp_path, acoustic_recipe(data={"on_error": "skip"})), lines.append)
    assert any(f"manifest.jsonl:{number}: not JSON" in line and "left out" in line for line in lines)


def test_a_dev_set_without_text_is_refused(tmp_path):
    rows = [{"audio_filepath": "1.wav", "duration": 0.9, "split": "test"}]
    with pytest.raises(DataError, match="no utterance has both audio and text"):
        build_task(
            with_rows(tmp_path, rows, data={"dev": [{"path": "manifest.jsonl", "split": "test"}]}), lambda _: None
        )


def test_speech_without_transcripts_is_there_for_a_task_that_needs_none(tmp_path):
    row = {"audio_filepath": "1.wav", "duration": 0.9}
    rows = [
        {**row, "id": f"{split} {text}", "text": text, "split": split}
        for split in ("train", "dev")
        for text in (None, "!")
    ]
    write_corpus(tmp_path, rows)
    recipe = make_recipe(tmp_path, tmp_path, masked_recipe())
    lines = []
    train, dev = load_speech(recipe, None, lines.append)
    assert [utterance.utt_id for utterance in train.utterances[len(TEXTS) :]] == ["train None", "train !"]
    assert [utterance.utt_id for utterance in dev.utterances[2:]] == ["dev None", "dev !"]
    assert lines == ["train: 9 utterances, 0.00 h", "dev: 4 utterances, 0.00 h"]
    missing = make_recipe(tmp_path, tmp_path, masked_recipe(data={"dev": [{"path": "gone.jsonl"}], "on_error": "skip"}))
    (tmp_path / "gone.jsonl").write_text('{"audio_filepath": "gone.wav", "duration": 1.0}\n')
    with pytest.raises(DataError, match=r"data\.dev: no utterance has audio"):
        load_speech(missing, None, lines.append)


def test_dev_is_thinned_evenly_and_train_repeats(tmp_path):
    parts = {"train": [{"path": "manifest.jsonl", "split": "train", "repeat": 3}], "dev": [{"path": "manifest.jsonl"}]}
    recipe = with_rows(tmp_path, [], data={**parts, "max_dev_utterances": 3})
    task = build_task(recipe, lambda _: None)
    assert len(task.train.utterances) == 3 * len(TEXTS)
    assert [utterance.audio_filepath.name for utterance in task.dev.utterances] == ["0.wav", "1.wav", "4.wav"]


@pytest.mark.parametrize(("share", "names"), [(0.5, "0135"), (0.3, "03"), (0.01, "0")])
def test_a_share_of_a_manifest_is_spread_evenly(tmp_path, share, names):
    parts = {"train": [{"path": "manifest.jsonl", "split": "train", "share": share}], "dev": []}
    task = build_task(with_rows(tmp_path, [], data=parts), lambda _: None)
    assert "".join(utterance.audio_filepath.stem for utterance in task.train.utterances) == names


def test_held_out_sentences_are_spread_and_never_trained_on(tmp_path):
    write_corpus(tmp_path)

    def build(values):
        lines = []
        return build_task(make_recipe(tmp_path, tmp_path, values), lines.append), lines

    task, lines = build(text_recipe(text={"dev_lines": 3}))
    assert (len(task.sentences), len(task.dev)) == (11, 3)
    assert task.data_counts() == {"sentences": 11}
    assert "dev: 3 sentences" in lines[1]
    task, _ = build(text_recipe(text={"dev_lines": 500}))  # more than there are: half
    assert (len(task.sentences), len(task.dev)) == (7, 7)
    task, _ = build(text_recipe(text={"dev_lines": 0}))
    assert (len(task.sentences), len(task.dev)) == (14, 0)
    assert task.evaluate() == {}


def test_rows_that_share_six_words_with_what_is_kept_apart_are_left_out(tmp_path):
    row = {"audio_filepath": "1.wav", "duration": 0.9}
    rows = [
        {**row, "text": "So this is going to be a long day.", "split": "train"},
        {**row, "text": "This is going to be.", "split": "train"},
        {**row, "text": None, "split": "train"},
        {**row, "text": "THIS IS GOING TO BE A BUSY EVENING", "split": "test"},
    ]
    write_corpus(tmp_path, rows)
    whole, apart, nothing = (
        ManifestRef("manifest.jsonl", split=split, exclude_overlap_with=splits)
        for split, splits in (("train", []), ("train", ["test"]), ("test", ["test"]))
    )
    texts = [[row.text for row in read_ref(tmp_path, ref).rows] for ref in (whole, apart)]
    assert texts[0][-3:] == ["So this is going to be a long day.", "This is going to be.", None]
    assert texts[1] == [text for text in texts[0] if text != "So this is going to be a long day."]
    (told,) = read_ref(tmp_path, apart).problems
    assert told.endswith("shares six words with a transcript of test")
    assert [*read_transcripts(tmp_path, [apart])] == [text for text in texts[1] if text]
    with pytest.raises(DataError, match="all rows share six words"):
        read_ref(tmp_path, nothing)


def test_recordings_without_speech_are_trained_on_where_the_recipe_says_so(tmp_path):
    row = {"audio_filepath": "1.wav", "duration": 0.9}
    rows = [
        {**row, "id": "forgotten", "text": "", "split": "train"},
        {**row, "id": "noise", "text": "hiss", "split": "noise"},
        {**row, "id": "silence", "text": "", "split": "dev"},
    ]
    refs = [
        {"path": "manifest.jsonl", "split": "noise", "nonspeech": True},
        {"path": "manifest.jsonl", "split": "train"},
    ]
    lines = []
    task = build_task(with_rows(tmp_path, rows, data={"train": refs}), lines.append)
    texts = {utterance.utt_id: utterance.text for utterance in task.train.utterances}
    assert texts["noise"] == ""
    assert len(texts) == len(TEXTS) + 1
    assert "train: left out 1: no text (forgotten)" in lines
    assert "silence" in {utterance.utt_id for utterance in task.dev.utterances}  # what is written there counts
    task.module.eval()
    place = next(i for i, utterance in enumerate(task.train.utterances) if utterance.utt_id == "noise")
    loss, _ = task.loss(task.load([place], 0), BatchPosition(0, 0, 0.0))
    assert loss.isfinite()
    assert loss > 0


@pytest.mark.parametrize("text", ["", "!?", "uh um"])
def test_dev_speech_without_a_word_to_score_is_refused_before_training(tmp_path, text):
    row = {"audio_filepath": "1.wav", "duration": 0.9, "text": text, "split": "silent", "id": "s1"}
    recipe = with_rows(tmp_path, [row], data={"dev": [{"path": "manifest.jsonl", "split": "silent"}]})
    with pytest.raises(DataError, match=r"data\.dev: no utterance has words to score \(s1\)"):
        build_task(recipe, lambda _: None)


def test_one_bad_row_does_not_lift_the_limit_of_labels(tmp_path):
    """Icefall's report 135, deepspeech.pytorch's 332."""
    row = {"audio_filepath": "1.wav", "duration": 0.15, "text": "a cat sat on the mat and sat", "split": "train"}
    sound = build_task(with_rows(tmp_path / "sound", []), lambda _: None).trained_on
    task = build_task(with_rows(tmp_path / "bad", [{**row, "id": "bad"}]), lambda _: None)
    assert task.trained_on == sound
    assert task.crowded == {"bad"}
    assert any(
        "far more labels a second" in line and "such as bad" in line for line in task.describe(task.load([0], 0))
    )


def test_the_dev_utterances_that_are_taken_must_have_words(tmp_path):
    rows = [
        {"audio_filepath": f"{number}.wav", "duration": 0.9, "text": text, "split": "half", "id": f"s{number}"}
        for number, text in enumerate(("", "a cat", "", "a cat"))
    ]
    data = {"dev": [{"path": "manifest.jsonl", "split": "half"}], "max_dev_utterances": 2}
    with pytest.raises(DataError, match=r"no utterance that is taken has words to score \(s0, s2\)"):
        build_task(with_rows(tmp_path, rows, data=data), lambda _: None)


def test_files_are_checked_before_training(tmp_path):
    """What a run would find out in its first epoch, or behind it: lhotse's report 1437 and its siblings."""
    row = {"audio_filepath": "cut.wav", "duration": 0.9, "text": "a cat", "split": "train"}
    rows = [{**row, "id": "broken"}, {**row, "audio_filepath": "1.wav", "duration": 9, "id": "9"}]
    recipe = with_rows(tmp_path, rows)
    (tmp_path / "cut.wav").write_bytes(b"RIFF no audio")
    task = build_task(recipe, lambda _: None)
    with pytest.raises(DataError, match=r"cut\.wav: .* \(and 1 more cannot be read\); or set data\.on_error=skip"):
        check_speech(task.speech[0], no_bar)
    assert check_speech(task.speech[1], no_bar) == []
    train = task.train
    train.on_error = "skip"
    broken, nine = check_speech(train, no_bar)
    assert broken.startswith(f"warning: {tmp_path / 'cut.wav'}: ")
    assert "the manifest says 9 s of '9'" in nine
    for index in range(len(train.utterances)):
        train.batch([index])
    assert task.trained_on.max_seconds < 2  # those that could not be read do not count
    speech_llm = build_task(with_rows(tmp_path, rows, **speech_llm_recipe(data={"on_error": "skip"})), lambda _: None)
    assert speech_llm.trained_on.max_seconds == 9  # as far as is known
    for index in range(len(train.utterances)):
        speech_llm.train.batch([index])
    assert speech_llm.trained_on == task.trained_on
    train.utterances = [each for each in train.utterances if each.utt_id in ("9", "broken")]
    with pytest.raises(DataError, match="check the manifests"):
        check_speech(train, no_bar)
