"""Every recipe of the repository passes `--dry-run`, on stand-ins for the corpora and for the runs it starts from."""

import json
import lzma
import math
import random
import shutil
from pathlib import Path

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from kikitori.align.hmm.corpus import Alignments, save_alignments
from kikitori.align.hmm.graph import state_labels
from kikitori.data.manifest import write_manifest
from kikitori.model.published.part import PARTS
from kikitori.scorers.prior import save_prior
from kikitori.text.forms.text_form import in_form
from kikitori.text.lexicon import Lexicon, write_lexicon
from kikitori.text.ngram.arpa import read_arpa
from kikitori.text.ngram.packed import write_packed
from kikitori.train.build.task import build_task
from kikitori.train.recipe.recipe import Recipe, load_recipe
from kikitori.train.run import dry_run
from tests.tiny import save_tiny_llm, tiny_bpe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
CLIPS = ROOT / "tests" / "data" / "clips"
CORPORA = ("librispeech_clean_5", "speechocean762_adults", "ljspeech_mini", "barista_intents", "books", "noise")
TRIED = (
    *("smoke", "whisper_ctc", "mini_ja_ctc", "mini_en_masked", "mini_en_mmi", "mini_en_lm", "mini_en_reading_drafts"),
    *("transcripts/lora", "integration/interface_cross", "integration/bridge_ctc_average"),
    *("adaptation/to_speechocean_lora_replay", "adaptation/to_speechocean_text"),
)
"""One recipe of each kind; the others are read (tests/train/test_run.py), and `make test-slow` tries them too."""
UNTRANSCRIBED = ("barista_intents",)
IN_KANA = (
    *("words_openjtalk", "words_espeak", "sentences_openjtalk", "sentences_espeak", "dev_words", "dev_sentences"),
    *("few_words_openjtalk", "few_sentences_openjtalk"),
)
READINGS = [Path("runs/ja") / f"{name}.tsv.xz" for name in ("readings", "few_readings")]
STARTS = {
    "mini-en-ctc": "mini_en_ctc",
    "mini-en": "mini_en_ctc",
    "mini-en-ctc-more": "mini_en_ctc_more",
    "mini-en-phones": "mini_en_phones",
    "mini-en-mmi": "mini_en_mmi",
    "mini-en-mmi-more": "mini_en_mmi_more",
    "mini-en-acoustic": "mini_en_mmi_last",
    "mini-en-lm": "mini_en_lm",
    "mini-en-reading": "mini_en_reading",
    "mini-en-reading-drafts": "mini_en_reading_drafts",
    "mini-en-lm-small": "mini_en_lm_small",
    "mini-en-gpu-ctc": "mini_en_gpu_ctc",
    "mini-en-gpu-lm": "mini_en_gpu_lm",
    "integration/base": "integration/base",
    "adaptation/speechocean_ctc": "adaptation/speechocean_ctc",
    "adaptation/speechocean_lm": "adaptation/speechocean_lm",
    "adaptation/speechocean": "adaptation/speechocean",
}
HEADS = "models/whisper-base-ctc"
"""The recipe of each run that recipes start from."""


def write_corpora(folder: Path) -> None:
    """Three recordings each: what takes a dry run long is the loss of a batch, and those of two corpora are one."""
    rows = [json.loads(line) for line in (CLIPS / "manifest.jsonl").read_text().splitlines()[:3]]
    for name in CORPORA:
        corpus = folder / "speech" / name
        shutil.copytree(CLIPS, corpus)
        changes = {"text": None} if name in UNTRANSCRIBED else {}
        backwards = [row | {"text": " ".join(reversed(row["text"].split()))} for row in rows]
        splits = {"train": rows, "dev": backwards, "test": backwards}
        parts = [json.dumps(row | changes | {"split": split}) for split, part in splits.items() for row in part]
        (corpus / "manifest.jsonl").write_text("\n".join(parts))
    generator = random.Random(0)  # noqa: S311  (text, not secrets)
    words = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz'", k=generator.randint(1, 8))) for _ in range(2000)]
    lines = [" ".join(generator.choices(words, k=8)) for _ in range(2000)]
    spoken = [row | {"audio_filepath": str(CLIPS / row["audio_filepath"]), "text": "キントー"} for row in rows]
    real = [row | {"split": split} for split in ("train", "dev") for row in spoken]
    for name in (*IN_KANA, "real"):
        (folder / name).mkdir()
        write_manifest(folder / name / "manifest.jsonl", real if name == "real" else spoken)
    (folder / "speech" / "written").mkdir()
    for name in ("librispeech", "accented"):
        cased = [row | {"audio_filepath": str(CLIPS / row["audio_filepath"])} for row in rows]
        write_manifest(folder / "speech" / "written" / f"{name}.jsonl", cased)
    labels = folder / "runs" / "labels" / "barista"
    labels.mkdir(parents=True)
    recognized = [row | {"audio_filepath": str(CLIPS / row["audio_filepath"]), "recognized": True} for row in rows]
    write_manifest(labels / "manifest.jsonl", recognized)
    (folder / "text").mkdir()
    (folder / "text" / "en_classic_books.txt.xz").write_bytes(lzma.compress("\n".join(lines).encode()))


def write_pronunciations(folder: Path) -> None:
    """Words are said as they are spelt, and no utterance is aligned."""
    rows = [json.loads(line) for line in (CLIPS / "manifest.jsonl").read_text().splitlines()]
    words = sorted({word for row in rows for word in in_form(row["text"], "en_plain").split()})
    lexicon = Lexicon({word: (tuple(word),) for word in words})
    for name in ("lexicon", "alignments"):
        (folder / "runs" / name).mkdir(parents=True)
    for name in ("en", "en_all"):
        write_lexicon(folder / "runs" / "lexicon" / f"{name}.tsv.xz", lexicon)
    (folder / "runs" / "ngram").mkdir()
    unigrams = [f"-2.0 {word}" for word in ("<unk>", "<s>", "</s>", *words)]
    arpa = ["\\data\\", f"ngram 1={len(unigrams)}", "", "\\1-grams:", *unigrams, "", "\\end\\", ""]
    (folder / "words.arpa").write_text("\n".join(arpa))
    write_packed(folder / "runs" / "ngram" / "words.ngram", *read_arpa(folder / "words.arpa"))
    prior = torch.full((len(lexicon.phones),), -math.log(len(lexicon.phones)))
    (folder / "runs" / "mini-en-acoustic").mkdir()
    save_prior(folder / "runs" / "mini-en-acoustic" / "phone_prior.safetensors", prior)
    shutil.copytree(ROOT / "searches", folder / "searches")
    nothing = Alignments(state_labels(lexicon.phones), {})
    save_alignments(folder / "runs" / "alignments" / "en.safetensors", nothing)


def write_whisper(folder: Path) -> None:
    sizes = {f"{side}_{what}": size for side in ("encoder", "decoder")
             for what, size in (("layers", 6), ("attention_heads", 2), ("ffn_dim", 16))}  # fmt: skip
    special = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
    config = WhisperConfig(d_model=16, vocab_size=40, **sizes, **special)
    WhisperForConditionalGeneration(config).save_pretrained(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_corpora(folder / "shared")
    write_pronunciations(folder)
    for name in ("whisper-base", "whisper-tiny.en"):
        write_whisper(folder / "parts" / name)
    units = tiny_bpe(extra=("<|im_start|>", "<|im_end|>"))
    save_tiny_llm(folder / "parts" / "SmolLM2-135M-Instruct", "llama", units=units)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for readings in READINGS:
            write_lexicon(readings, Lexicon({"キントー": (("k", "i", "N", "t", "o", "o"),)}))
    return folder


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes").with_suffix(""))


def write_starts(recipe: Recipe) -> None:
    """The runs that a recipe starts from, as untrained models, and those that these start from."""
    named = repr(recipe)
    if HEADS in named and not Path(HEADS).exists():
        build_task(load_recipe(ROOT / "recipes" / "whisper_ctc.yaml", ["data_root=shared"]), print).export(Path(HEADS))
        shutil.copy("runs/lexicon/en.tsv.xz", Path(HEADS, "lexicon.tsv.xz"))
        shutil.copy("runs/ngram/words.ngram", HEADS)
    for run, stem in STARTS.items():
        model = Path("runs") / run / "model"
        if f"runs/{run}'" in named and not model.exists():
            start = load_recipe(ROOT / "recipes" / f"{stem}.yaml", ["data_root=shared"])
            write_starts(start)
            model.mkdir(parents=True)
            build_task(start, print).export(model)


@pytest.mark.parametrize(
    "path", [path if name(path) in TRIED else pytest.param(path, marks=pytest.mark.slow) for path in RECIPES], ids=name
)
def test_every_recipe_passes_a_dry_run(path, world, monkeypatch):
    monkeypatch.chdir(ROOT if path.stem == "smoke" else world)
    monkeypatch.setenv(PARTS, str(world / "parts"))
    overrides = [] if path.stem == "smoke" else ["data_root=shared"]
    if "_lm" in path.stem or "_reading" in path.stem:
        overrides.append("text.batch_labels=200")  # batches for a GPU take long here
    if path.stem.endswith("_text"):
        overrides.append("text.dev_lines=2")  # of the stand-ins' few
    if path.stem == "written":
        overrides.append("units.size=1000")  # more than the stand-ins have
    write_starts(load_recipe(path, overrides))
    lines = dry_run(path, overrides)
    assert "loss before training" in lines[-1]


def test_stage_one_of_mini_en_starts_from_masked_prediction_as_the_recipe_says(world, monkeypatch):
    monkeypatch.chdir(world)
    task = build_task(load_recipe(ROOT / "recipes" / "mini_en_masked.yaml", ["data_root=shared"]), print)
    task.export(Path("runs/mini-en-masked/model"))
    overrides = ["data_root=shared", "encoder.config=null", "encoder.init=runs/mini-en-masked"]
    stage = build_task(load_recipe(ROOT / "recipes" / "mini_en_ctc.yaml", overrides), print)
    left, right = task.encoder.state_dict(), stage.acoustic.encoder.state_dict()
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)
