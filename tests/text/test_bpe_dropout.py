import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from kikitori.errors import ConfigError
from kikitori.text.bpe_dropout import BPEDropout
from kikitori.text.units import TokenizerUnits, with_text_form
from tests.tiny import TEXTS, tiny_bpe, tiny_units

KINDS = ("bytes", "characters")
BPE = {kind: tiny_bpe(kind) for kind in KINDS}
ANY_TEXT = st.text(alphabet="abcdeghilnorstuwxyz ABCé日😀'<s>/.", max_size=30)


def draw(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("form", ["as_is", "lower"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(text=ANY_TEXT)
def test_without_dropout_it_is_the_tokenizer(kind, form, text):
    units = with_text_form(BPE[kind], form)
    assert BPEDropout(units, 0.0).encode(text, draw(0)) == units.encode(text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30, deadline=None)
@given(text=ANY_TEXT, rate=st.floats(0.0, 1.0), seed=st.integers(0, 1000))
def test_any_segmentation_reads_back_as_the_text(kind, text, rate, seed):
    units, sampled = BPE[kind], BPEDropout(BPE[kind], rate)
    labels = sampled.encode(text, draw(seed))
    assert units.decode(labels) == units.decode(units.encode(text))
    assert labels == sampled.encode(text, draw(seed))


@pytest.mark.parametrize("kind", KINDS)
def test_the_more_dropout_the_more_labels(kind):
    counts = [sum(len(BPEDropout(BPE[kind], rate).encode(t, draw(0))) for t in TEXTS) for rate in (0.0, 0.4, 0.7, 1.0)]
    assert counts == sorted(counts)
    assert counts[0] < counts[1] < counts[2] < counts[3]
    marks = 0 if kind == "bytes" else len(TEXTS)  # a word mark begins each text
    assert counts[3] == sum(map(len, TEXTS)) + marks


def test_seeds_decide_and_all_segmentations_come_up():
    sampled = BPEDropout(BPE["bytes"], 0.5)
    found = {tuple(sampled.encode("the", draw(seed))) for seed in range(200)}
    assert {BPE["bytes"].decode(list(labels)) for labels in found} == {"the"}
    assert {len(labels) for labels in found} == {1, 2, 3}


def test_words_that_need_no_merges_are_dropped_too():
    # Llama 3 takes a word of its vocabulary whole, though no merges lead to it.
    units = tiny_bpe("bytes")
    content = json.loads(units.tokenizer.backend_tokenizer.to_str())
    content["model"]["vocab"]["xyz"] = len(units.tokenizer)
    content["model"]["ignore_merges"] = True
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(content)), **names)
    units = TokenizerUnits(tokenizer)
    assert len(units.encode("xyz")) == 1
    assert BPEDropout(units, 0.0).encode("xyz", draw(0)) == units.encode("xyz")
    counts = {len(BPEDropout(units, 0.5).encode("xyz", draw(seed))) for seed in range(20)}
    assert counts == {1, 3}
    assert len(BPEDropout(units, 1.0).encode("xyz", draw(0))) == 3


def test_other_units_are_refused():
    with pytest.raises(ConfigError, match=r"units\.bpe_dropout: the units are Unigram, not BPE; set it to 0"):
        BPEDropout(tiny_units(), 0.1)
    marked = tiny_bpe("bytes")
    marked.tokenizer.backend_tokenizer.model.end_of_word_suffix = "</w>"
    with pytest.raises(ConfigError, match="marks inside or behind words"):
        BPEDropout(marked, 0.1)
