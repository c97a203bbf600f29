import copy
import json
import math
import random

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    LlamaConfig,
)
from transformers.models.gpt_neox import modeling_gpt_neox
from transformers.models.llama import modeling_llama

from kikitori.data.speech import pad_waveforms
from kikitori.errors import ModelError
from kikitori.model import SpeechLLM, SpeechLLMConfig
from kikitori.model.adapters.lora import Lora, attach_lora, merged_copy
from kikitori.model.decoder.attention import merged_attention
from kikitori.model.decoder.attention.cross_attention import CrossLayer
from kikitori.model.decoder.attention.merged_attention import MergedLayer
from kikitori.model.decoder.attention.speech_layer import Heads
from kikitori.model.decoder.cache import prefill, step
from kikitori.model.decoder.interface import FAMILIES, build_interface
from kikitori.model.decoder.llm import embed, forward, project
from kikitori.model.decoder.memory import MERGED, Memory
from kikitori.model.safety.config import quiet_transformers
from kikitori.text.prompt import Prompt
from tests.crossed import crossed
from tests.tiny import (
    BRIDGES,
    DIM,
    INTERFACES,
    shake,
    tiny_acoustic_model,
    tiny_llm,
    tiny_speech_llm,
    tiny_units,
    tiny_waveforms,
)

BESIDE = ("merged_attention", "cross_attention")
PAIRS = [(interface, family) for interface in BESIDE for family in FAMILIES]
ALL = [("prefix", "llama"), *PAIRS]
PROMPT = Prompt((5, 6), (7, 1), None, 2)
SPEECH = (9, 1, 17)  # positions per utterance
LABELS = [[5, 6, 7, 8], [], [9, 3, 9]]
UNITS = tiny_units()


def close(got, expected, tolerance=1e-5):
    torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


class Pair:
    """An LLM and an interface to it, open and with random weights, without the acoustic half."""

    def __init__(self, interface: str, family: str) -> None:
        self.llm = tiny_llm(family)
        torch.manual_seed(1)
        self.interface = build_interface(interface, self.llm)
        shake(self.interface, 1, 0.2)
        self.interface.open()

    def rows(self, speech, targets):
        """The LLM's input for a list of speech prompts (positions, dim), padded with NaN."""
        lengths = torch.tensor([len(row) for row in speech])
        embeds = torch.full((len(speech), int(lengths.max()), DIM), math.nan)
        for index, row in enumerate(speech):
            embeds[index, : len(row)] = row
        return self.interface(lambda labels: embed(self.llm, labels), PROMPT, embeds, lengths, targets)

    def logits(self, speech, targets):
        """Logits (positions, vocab) of the loss positions."""
        rows = self.rows(speech, targets)
        hidden = forward(self.llm, rows.embeds, rows.lengths, rows.memory)
        return project(self.llm, hidden[rows.target_positions])

    def prefill(self, speech):
        rows = self.rows(speech, None)
        return prefill(self.llm, rows.embeds, rows.lengths, rows.memory)


def some_speech(seed=0, sizes=SPEECH):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, DIM, generator=generator) for size in sizes]


@pytest.fixture(scope="module", params=ALL, ids=["-".join(pair) for pair in ALL])
def pair(request):
    return Pair(*request.param)


@pytest.fixture(scope="module", params=PAIRS, ids=["-".join(pair) for pair in PAIRS])
def beside(request):
    return Pair(*request.param)


# What it computes


@pytest.mark.parametrize(("interface", "family"), PAIRS)
@torch.no_grad()
def test_the_llm_begins_as_it_was(interface, family):
    llm, reader = tiny_llm(family), tiny_llm(family)
    closed = build_interface(interface, reader)
    speech, lengths = 3.0 * torch.randn(2, 1500, DIM), torch.tensor([1500, 3])
    rows = closed(lambda labels: embed(reader, labels), PROMPT, speech, lengths, [[9, 10, 11], [3]])
    heard = project(reader, forward(reader, rows.embeds, rows.lengths, rows.memory))
    for row, labels in enumerate(([9, 10, 11], [3])):
        text = torch.tensor([[*PROMPT.before, *PROMPT.after, *labels]])
        expected = llm(text).logits[0]
        # Two minutes of speech at 80 ms, three times louder than the text: at most a thousandth of a logit.
        tolerance = 1e-3 if interface == "merged_attention" else 1e-5
        assert (heard[row, : len(expected)] - expected).abs().max() < tolerance
    silent = project(reader, forward(reader, rows.embeds, rows.lengths))
    if interface == "cross_attention":
        assert torch.equal(heard, silent)


@pytest.mark.parametrize("family", ["gpt_neox", "qwen2"])
@torch.no_grad()
def test_the_llm_begins_as_it_was_however_biased_its_keys(family):
    """Such a bias moves all scores of a query alike; Qwen2 has large ones."""
    llm, reader = tiny_llm(family), tiny_llm(family)
    for model in (llm, reader):
        generator = torch.Generator().manual_seed(4)
        for layer in model.get_decoder().layers:
            if family == "qwen2":
                biases = layer.self_attn.k_proj.bias
            else:
                biases = layer.attention.query_key_value.bias.view(4, 3, 8)[:, 1]
            biases.copy_(60.0 * torch.randn(biases.shape, generator=generator))
    speech, lengths, labels = torch.randn(1, 200, DIM), torch.tensor([200]), [9, 10, 11]
    text = torch.tensor([[*PROMPT.before, *PROMPT.after, *labels]])

    def change(interface):
        rows = interface(lambda labels: embed(reader, labels), PROMPT, speech, lengths, [labels])
        heard = project(reader, forward(reader, rows.embeds, rows.lengths, rows.memory))
        return (heard - llm(text).logits).abs().max()

    closed = build_interface("merged_attention", reader)
    assert change(closed) < 1e-3
    for layer in closed.layers:
        layer.keys.bias.zero_()
    assert change(closed) > 0.1


@torch.no_grad()
def test_merged_attention_is_one_softmax_over_speech_and_text():
    torch.manual_seed(0)
    heads, key_heads, dim, text, speech = 4, 2, 8, 5, 3
    config = LlamaConfig(hidden_size=32, num_attention_heads=heads, max_position_embeddings=64)
    cos, sin = modeling_llama.LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(text)[None])
    free, keys = torch.randn(1, heads, text, dim), torch.randn(1, key_heads, text, dim)
    values = torch.randn(1, key_heads, text, dim)
    query, rotated = modeling_llama.apply_rotary_pos_emb(free, keys, cos, sin)
    reader = MergedLayer(DIM, Heads(heads, key_heads, dim))
    reader.gate.data = torch.tensor([0.05, 0.1, 0.2, -0.3])
    speech_keys, speech_values = torch.randn(1, key_heads, speech, dim), torch.randn(1, key_heads, speech, dim)

    class Reading:
        valid, rotary = torch.ones(1, speech, dtype=torch.bool), (cos, sin)
        watched, weights = True, {}

        def layer(self, index):
            assert index == 1
            return reader, speech_keys, speech_values

    module = torch.nn.Module()
    module.layer_idx = 1
    mask = torch.full((text, text), torch.finfo().min).triu(1)[None, None]
    reading = Reading()
    got, to_text = merged_attention._merged_attention(
        module, query, rotated, values, mask, scaling=dim**-0.5, memory=reading, position_ids=None
    )
    assert got.shape == (1, text, heads, dim)
    for head in range(heads):
        for u in range(text):
            of = head // 2  # two query heads per key head
            scores = [
                math.log(10 * abs(float(reader.gate[head]))) + free[0, head, u] @ k / dim**0.5
                for k in speech_keys[0, of]
            ]
            scores += [query[0, head, u] @ rotated[0, of, past] / dim**0.5 for past in range(u + 1)]
            weights = torch.stack(scores).softmax(0)
            shown = torch.cat([reading.weights[1][0, head, u], to_text[0, head, u, : u + 1]])
            assert torch.allclose(shown, weights, atol=1e-6)
            expected = weights @ torch.cat([speech_values[0, of], values[0, of, : u + 1]])
            close(got[0, u, head], expected)


@torch.no_grad()
def test_queries_are_taken_back_to_where_they_were_before_rotation():
    neox = GPTNeoXConfig(hidden_size=64, num_attention_heads=2, rotary_pct=0.25)
    llama = LlamaConfig(hidden_size=64, num_attention_heads=2)
    query, positions = torch.randn(2, 2, 6, 32), torch.tensor([[0, 1, 2, 3, 4, 5], [90, 91, 92, 93, 94, 95]])
    for library, rotary in (
        (modeling_gpt_neox, modeling_gpt_neox.GPTNeoXRotaryEmbedding(neox)),
        (modeling_llama, modeling_llama.LlamaRotaryEmbedding(llama)),
    ):
        cos, sin = rotary(query, positions)
        rotated, _ = library.apply_rotary_pos_emb(query, query, cos, sin)
        assert not torch.allclose(rotated, query, atol=0.1)
        close(merged_attention._unrotated(rotated, cos, sin), query)


@torch.no_grad()
def test_cross_attention_by_hand():
    torch.manual_seed(0)
    heads, key_heads, dim = 4, 2, 8
    layer = CrossLayer(DIM, Heads(heads, key_heads, dim), 0.5).eval()
    layer.gate.data.fill_(0.07)
    hidden, speech = torch.randn(1, 3, DIM), torch.randn(1, 5, DIM)
    keys, values = layer(speech)
    valid = torch.tensor([[True, True, True, True, False]])
    expected = hidden.clone()
    queries = layer.queries(layer.norm(hidden))
    for u in range(3):
        heard = []
        for head in range(heads):
            scores = torch.stack(
                [queries[0, u, head * dim :][:dim] @ keys[0, head // 2, t] / dim**0.5 for t in range(4)]
            )
            heard.append(scores.softmax(0) @ values[0, head // 2, :4])
        expected[0, u] += math.tanh(0.7) * layer.output(torch.cat(heard))
    close(layer.read(hidden, keys, values, valid), expected)


@torch.no_grad()
def test_cross_attention_stands_before_each_layer():
    pair = Pair("cross_attention", "llama")
    rows = pair.rows(some_speech(), LABELS)
    entered = []
    decoder = pair.llm.get_decoder()
    handles = [
        part.register_forward_pre_hook(lambda _, args, __: entered.append(args[0]), with_kwargs=True)
        for part in decoder.layers  # after ours
    ]
    forward(pair.llm, rows.embeds, rows.lengths, rows.memory)
    for handle in handles:
        handle.remove()
    reader, (keys, values) = rows.memory.readers[0], rows.memory.layers[0]
    valid = torch.arange(max(SPEECH)) < rows.memory.lengths[:, None]
    close(entered[0], reader.read(rows.embeds, keys, values, valid))
    assert len(entered) == 2


@torch.no_grad()
def test_speech_has_no_positions(beside):
    """Moving the text along changes nothing: text positions are relative, and the speech stands at none."""
    rows = beside.rows(some_speech(), LABELS)
    positions = torch.arange(rows.embeds.shape[1]).expand(3, -1)
    usual = forward(beside.llm, rows.embeds, rows.lengths, rows.memory, positions=positions)
    moved = forward(beside.llm, rows.embeds, rows.lengths, rows.memory, positions=positions + 31)
    for row, length in enumerate(rows.lengths):
        close(moved[row, :length], usual[row, :length], 1e-4)


@torch.no_grad()
def test_the_speech_matters(pair):
    some, other = pair.logits(some_speech(0), LABELS), pair.logits(some_speech(1), LABELS)
    assert (some - other).abs().max(dim=1).values.min() > 0.05


@torch.no_grad()
def test_without_a_memory_the_llm_is_the_text_model_it_was(beside):
    plain = tiny_llm(beside.llm.config.model_type)
    embeds, lengths = torch.randn(2, 6, DIM), torch.tensor([6, 4])
    got, expected = forward(beside.llm, embeds, lengths), forward(plain, embeds, lengths)
    for row, length in enumerate(lengths):
        close(got[row, :length], expected[row, :length])
    text = torch.tensor([[3, 4, 5]])
    close(beside.llm(text).logits, plain(text).logits)


# Batches, caches, states


@torch.no_grad()
def test_batch_equals_single_whatever_the_padding(pair):
    speech = some_speech(2, (4, 30, 1, 11))
    labels = [[3 + (i + j) % 20 for j in range(2 * i)] for i in range(4)]
    alone = torch.cat([pair.logits([one], [row]) for one, row in zip(speech, labels, strict=True)])
    close(pair.logits(speech, labels), alone)
    back = pair.logits(speech[::-1], labels[::-1])
    sizes = [len(row) + 1 for row in labels]
    close(torch.cat(back.split(sizes[::-1])[::-1]), alone)


@torch.no_grad()
def test_no_label_sees_the_future(pair):
    one, other = (pair.logits(some_speech()[:1], [labels]) for labels in ([5, 6, 7, 8], [5, 6, 20, 21]))
    close(one[:3], other[:3])
    assert not torch.allclose(one[3:], other[3:], atol=1e-2)


@torch.no_grad()
def test_prefill_and_steps_equal_the_full_pass(pair):
    speech, labels = some_speech(), torch.randint(50, (3, 6), generator=torch.Generator().manual_seed(3))
    expected = pair.logits(speech, labels.tolist()).reshape(3, 7, -1)
    logits, state = pair.prefill(speech)
    got = [logits[:, None]]
    for columns in (labels[:, :1], labels[:, 1:4], labels[:, 4:]):
        logits, state = step(pair.llm, columns, state)
        got.append(logits)
    close(torch.cat(got, dim=1), expected)


@pytest.mark.parametrize("seed", range(2))
@torch.no_grad()
def test_any_sequence_of_operations_equals_the_full_pass(pair, seed):
    rng = random.Random(seed)  # noqa: S311
    speech = some_speech(seed, [rng.randint(1, 12) for _ in range(rng.randint(1, 3))])
    texts = [[] for _ in speech]
    _, state = pair.prefill(speech)
    prompt = state.lengths.tolist()

    def check(logits, counts):
        expected = pair.logits(speech, texts).split([len(text) + 1 for text in texts])
        for row, count in enumerate(counts):
            close(logits[row, :count], expected[row][len(texts[row]) + 1 - count :])

    for _ in range(10):
        match rng.choice(["step", "step", "ragged", "fork", "reorder", "crop"]):
            case "fork" if len(texts) <= 4:
                n = rng.randint(1, 3)
                state = state.fork(n)
                texts = [list(text) for text in texts for _ in range(n)]
                speech, prompt = ([item for item in items for _ in range(n)] for items in (speech, prompt))
            case "reorder":
                order = [rng.randrange(len(texts)) for _ in range(rng.randint(1, len(texts)))]
                state, texts = state.reorder(torch.tensor(order)), [list(texts[i]) for i in order]
                speech, prompt = ([items[i] for i in order] for items in (speech, prompt))
            case "crop":
                texts = [text[: rng.randint(max(0, len(text) - 3), len(text))] for text in texts]
                state = state.crop(torch.tensor([a + len(b) for a, b in zip(prompt, texts, strict=True)]))
            case kind:
                n = rng.randint(1, 3)
                labels = [[rng.randrange(50) for _ in range(n)] for _ in texts]
                counts = [rng.randint(0, n) if kind == "ragged" else n for _ in texts]
                logits, state = step(pair.llm, torch.tensor(labels), state, torch.tensor(counts))
                texts = [text + row[:count] for text, row, count in zip(texts, labels, counts, strict=True)]
                check(logits, counts)
    logits, _ = step(pair.llm, torch.full((len(texts), 1), 4), state)
    texts = [[*text, 4] for text in texts]
    check(logits, [1] * len(texts))


@torch.no_grad()
def test_hypotheses_share_the_speech_of_their_utterance(beside):
    _, state = beside.prefill(some_speech())
    addresses = [tensor.data_ptr() for pair in state.memory.layers for tensor in pair]
    beam = state.fork(4).reorder(torch.tensor([3, 3, 0, 1, 4, 5, 7, 7, 11, 10, 9, 8]))
    _, beam = step(beside.llm, torch.full((12, 1), 4), beam)
    beam = beam.crop(beam.lengths - 1)
    assert [tensor.data_ptr() for pair in beam.memory.layers for tensor in pair] == addresses
    assert beam.memory.rows.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert beam.memory.layers[0][0].shape[0] == 3


@torch.no_grad()
def test_speech_that_no_row_listens_to_is_forgotten(beside):
    _, state = beside.prefill(some_speech())
    most = state.reorder(torch.tensor([1, 0]))  # the longest utterance has ended: most are still listened to
    assert (most.memory.lengths.tolist(), most.memory.rows.tolist()) == (state.memory.lengths.tolist(), [1, 0])
    late = most.reorder(torch.tensor([1]))
    assert (late.memory.lengths.tolist(), late.memory.rows) == ([9], None)
    assert late.memory.layers[0][0].shape[::2] == (1, 9)
    beam = state.fork(2).reorder(torch.tensor([1, 0, 3]))
    assert (beam.memory.lengths.tolist(), beam.memory.rows.tolist()) == ([9, 1, 17], [0, 0, 1])
    texts, speech = [[4]] * 3, [some_speech()[i] for i in (0, 0, 1)]
    logits, _ = step(beside.llm, torch.tensor(texts), beam)
    close(logits[:, 0], beside.logits(speech, texts)[1::2])


def test_memory_by_hand():
    keys = torch.arange(5.0)[:, None, None, None].expand(5, 1, 4, 1)
    memory = Memory([], ((keys, -keys),), torch.tensor([2, 4, 1, 3, 3]))
    assert (memory.batch_size, memory.tightened()) == (5, memory)
    most = memory.reorder(torch.tensor([4, 0, 2]))
    assert most.tightened() is most
    some = memory.reorder(torch.tensor([2, 0, 0, 2]))
    assert (some.batch_size, some.of_rows(memory.lengths).tolist()) == (4, [1, 2, 2, 1])
    again = some.reorder(torch.tensor([3, 1]))
    assert again.rows.tolist() == [2, 0]
    tight = some.tightened()
    assert (tight.lengths.tolist(), tight.rows.tolist()) == ([2, 1], [1, 0, 0, 1])
    assert tight.layers[0][1][:, 0, :, 0].tolist() == [[0, 0], [-2, -2]]
    alone = again.tightened()
    assert (alone.lengths.tolist(), alone.rows, alone.layers[0][0][:, 0, 0, 0].tolist()) == ([1, 2], None, [2, 0])


# Learning


def test_gradients_reach_every_part(beside):
    beside.llm.zero_grad()
    beside.interface.zero_grad()
    speech = [row.requires_grad_() for row in some_speech()]
    beside.logits(speech, LABELS).log_softmax(-1)[:, 3].sum().backward()
    for name, parameter in [*beside.interface.named_parameters(), *beside.llm.named_parameters()]:
        assert parameter.grad.abs().sum() > 0, name
    assert all((row.grad.abs().sum(-1) > 0).all() for row in speech[:1])
    beside.llm.zero_grad()


@pytest.mark.parametrize(("interface", "family"), PAIRS)
def test_a_closed_gate_has_a_gradient_that_opens_it(interface, family):
    opened = Pair(interface, family)
    closed = Pair(interface, family)
    for layer in closed.interface.layers:
        torch.nn.init.constant_(layer.gate, 1e-20 if interface == "merged_attention" else 0.0)
    for pair in (opened, closed):
        torch.nn.functional.cross_entropy(pair.logits(some_speech(), LABELS), torch.full((10,), 3)).backward()
    for open_layer, closed_layer in zip(opened.interface.layers, closed.interface.layers, strict=True):
        # Not smaller than that of an open gate by orders of magnitude, and far above the epsilon of AdamW.
        assert closed_layer.gate.grad.abs().max() > 0.01 * open_layer.gate.grad.abs().max()
        assert closed_layer.gate.grad.abs().max() > 1e-5
    optimizer = torch.optim.AdamW(closed.interface.parameters(), lr=1e-4)
    optimizer.step()
    for layer in closed.interface.layers:
        assert layer.gate.abs().max() > 5e-5
        if interface == "merged_attention":
            assert layer.bias.max() > -8  # from -43.7 in one step
    optimizer.zero_grad()
    closed.logits(some_speech(), LABELS).log_softmax(-1)[:, 3].sum().backward()
    assert all(parameter.grad.abs().max() > 1e-7 for parameter in closed.interface.parameters())


def test_a_new_merged_layer_begins_at_its_bias():
    layer = MergedLayer(DIM, Heads(4, 2, 8))
    close(layer.bias, torch.full((4,), -43.654))
    torch.nn.init.zeros_(layer.gate)  # as half precision may store it
    layer.bias.sum().backward()
    assert layer.bias.isfinite().all()
    assert layer.gate.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning")
@pytest.mark.parametrize(("interface", "family"), crossed(BESIDE, FAMILIES))
def test_activations_computed_again_give_the_same_gradients(interface, family):
    pair, gradients = Pair(interface, family), []
    pair.llm.train()
    for checkpoint in (False, True):
        if checkpoint:
            pair.llm.gradient_checkpointing_enable({"use_reentrant": False})
        pair.interface.zero_grad()
        pair.logits(some_speech(), LABELS).log_softmax(-1)[:, 3].sum().backward()
        gradients.append([parameter.grad for parameter in pair.interface.parameters()])
    for once, again in zip(*gradients, strict=True):
        close(again, once)


@pytest.mark.parametrize(("interface", "family"), crossed(BESIDE, FAMILIES))
def test_adapters_learn_beside_the_interface(interface, family):
    pair = Pair(interface, family)
    with torch.no_grad():
        before = pair.logits(some_speech(), LABELS)
    pair.llm = attach_lora(pair.llm, Lora(rank=2, alpha=4.0)).eval()
    close(pair.logits(some_speech(), LABELS), before)
    for name, parameter in pair.llm.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    logits = pair.logits(some_speech(), LABELS)
    assert not torch.allclose(logits, before, atol=1e-3)
    logits.sum().backward()
    assert all(p.grad is not None for p in pair.interface.parameters())
    pair.llm = merged_copy(pair.llm)
    with torch.no_grad():
        close(pair.logits(some_speech(), LABELS), logits.detach())


# The whole model


def whole(interface, **changes):
    return tiny_speech_llm(interface=interface, **changes)


def label_logits(model):
    with torch.no_grad():
        return model(*pad_waveforms(tiny_waveforms(3, seconds=(0.4, 1.2))), LABELS)[0]


@pytest.mark.parametrize(("interface", "family"), crossed(BESIDE, FAMILIES))
def test_saved_and_loaded_is_bit_identical(interface, family, tmp_path):
    model = whole(interface, llm=family)
    model.save_pretrained(tmp_path)
    with quiet_transformers():
        loaded = [SpeechLLM.from_pretrained(tmp_path).eval(), AutoModel.from_pretrained(tmp_path).eval()]
    assert type(AutoConfig.from_pretrained(tmp_path)) is SpeechLLMConfig
    assert MERGED not in (tmp_path / "config.json").read_text()
    expected = model.state_dict()
    assert any(name.startswith("interface.layers.1.") for name in expected)
    assert expected.keys() - tiny_speech_llm(llm=family).state_dict().keys() == {
        name for name in expected if name.startswith("interface.")
    }  # nothing of it lies in the LLM
    for other in loaded:
        assert other.config.interface == interface
        assert other.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
        assert torch.equal(label_logits(model), label_logits(other))


@pytest.mark.parametrize("interface", BESIDE)
def test_a_copy_reads_for_itself(interface):
    model = whole(interface)
    before, other = label_logits(model), copy.deepcopy(model)
    for parameter in model.interface.parameters():
        parameter.data.zero_()
    assert torch.equal(label_logits(other), before)
    assert not torch.allclose(label_logits(model), before, atol=1e-2)


@pytest.mark.parametrize("interface", BESIDE)
def test_a_second_model_around_the_same_parts_leaves_the_first_alone(interface, tmp_path):
    model = whole(interface)
    before = label_logits(model)
    second = SpeechLLM(model.config, acoustic=model.acoustic, llm=model.llm).eval()
    second.interface.load_state_dict(model.interface.state_dict())
    second.bridge.load_state_dict(model.bridge.state_dict())
    SpeechLLM(copy.deepcopy(model.config)).save_pretrained(tmp_path)
    assert torch.equal(label_logits(model), before)
    assert torch.equal(label_logits(second), before)


def test_a_configuration_of_before_is_a_prefix(tmp_path):
    tiny_speech_llm().save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values.pop("interface") == "prefix"
    (tmp_path / "config.json").write_text(json.dumps(values))
    with quiet_transformers():
        loaded = SpeechLLM.from_pretrained(tmp_path).eval()
    assert loaded.config.interface == "prefix"
    assert torch.equal(label_logits(loaded), label_logits(tiny_speech_llm()))


@pytest.mark.parametrize(("interface", "bridge"), crossed(INTERFACES, BRIDGES))
def test_every_bridge_goes_with_every_interface(interface, bridge):
    model = whole(interface, bridge=bridge, prompt="rwth")
    waveforms = tiny_waveforms(4)
    labels = [[3, 4], [5], [], [6, 7, 8]]
    with torch.no_grad():
        together, _ = model(*pad_waveforms(waveforms), labels)
        alone = [model(*pad_waveforms([w]), [row])[0] for w, row in zip(waveforms, labels, strict=True)]
    close(together, torch.cat(alone), 2e-4)
    encoded = model.acoustic.encode(*pad_waveforms(waveforms))
    prefix, prompt = model.prefix(encoded), len(model.config.prompt_before) + len(model.config.prompt_after)
    if interface == "prefix":
        assert prefix.memory is None
        assert min(prefix.lengths) > prompt
    else:  # the LLM computes nothing for the speech
        assert prefix.lengths.tolist() == [prompt] * 4
        assert torch.equal(prefix.memory.lengths, model.speech_prompt(encoded)[1])


@pytest.mark.parametrize("interface", INTERFACES)
def test_states_of_an_earlier_layer_are_at_hand(interface):
    model = whole(interface)
    encoded = model.acoustic.encode(*pad_waveforms(tiny_waveforms(3)))
    rows = model.teacher_input(encoded, LABELS)
    with torch.no_grad():
        first, last = model.target_states(rows, [1])
        assert torch.equal(last, model.target_states(rows)[0])
        assert torch.equal(project(model.llm, last), model.target_logits(rows))
        seen = []
        handle = model.llm.get_decoder().layers[0].register_forward_hook(lambda _, __, output: seen.append(output))
        model.target_states(rows)
        handle.remove()
    assert torch.equal(first, seen[0][rows.target_positions])


@pytest.mark.parametrize("interface", INTERFACES)
def test_half_precision(interface):
    model = whole(interface, llm="qwen2")
    batch = pad_waveforms(tiny_waveforms(3, seconds=(0.4, 1.2)))
    encoded = model.acoustic.encode(*batch)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        expected, _ = model.label_logits(encoded, LABELS)
        prefix = model.prefix(encoded)
        logits, state = prefill(model.llm, prefix.embeds, prefix.lengths, prefix.memory)
        more, _ = step(model.llm, torch.tensor([[5, 6, 7, 8]]), state.reorder(torch.tensor([0])))
    got = torch.cat([logits[:1], more[0]])
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected[:5], atol=0.15, rtol=0.05)


# What does not fit


def test_unknown_interfaces_and_families_are_refused():
    with pytest.raises(ModelError, match="unknown interface 'suffix'; use prefix, merged_attention or cross_attention"):
        build_interface("suffix", tiny_llm())
    gpt2 = GPT2LMHeadModel(GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2))
    build_interface("prefix", gpt2)
    for interface in BESIDE:
        with pytest.raises(ModelError, match=f"{interface} is not made for an LLM of type gpt2; use the prefix"):
            build_interface(interface, gpt2)


@pytest.mark.parametrize("interface", BESIDE)
def test_something_must_stand_before_the_first_label(interface):
    acoustic, llm = tiny_acoustic_model(), tiny_llm("llama", UNITS.size)
    config = SpeechLLMConfig(acoustic.config, llm.config, interface=interface)
    problem = f"nothing stands before the first label with {interface}; give the prompt a BOS"
    with pytest.raises(ModelError, match=problem):
        SpeechLLM(config, acoustic=acoustic, llm=llm)


@pytest.mark.parametrize("interface", BESIDE)
def test_ctc_labels_are_shown_in_the_memory_too(interface):
    model = whole(interface)
    config = copy.deepcopy(model.config)
    config.show_ctc = True
    shown = SpeechLLM(config, acoustic=model.acoustic, llm=model.llm).eval()
    shown.interface.load_state_dict(model.interface.state_dict())
    encoded = model.acoustic.encode(*pad_waveforms(tiny_waveforms(2)))
    embeds, lengths = shown.speech_prompt(encoded)
    assert embeds.abs().sum() > 0  # of labels alone, for the bridge starts at zero
    memory = shown.prefix(encoded).memory
    assert torch.equal(memory.lengths, lengths)
    keys, values = shown.interface.layers[0](embeds)
    close(memory.layers[0][0], keys)
    close(memory.layers[0][1], values)
    shown.target_logits(shown.teacher_input(encoded, LABELS[:2])).log_softmax(-1)[:, 3].sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in shown.bridge.parameters())


def test_a_deaf_llm_is_an_error():
    pair = Pair("merged_attention", "llama")
    pair.llm.set_attn_implementation("sdpa")
    with pytest.raises(ModelError, match="LlamaForCausalLM: the LLM did not read the speech"):
        pair.prefill(some_speech())


def test_a_memory_of_other_rows_is_refused():
    pair = Pair("cross_attention", "llama")
    rows = pair.rows(some_speech(), None)
    with pytest.raises(ModelError, match="a memory of 3 rows does not fit 2 rows of text"):
        prefill(pair.llm, rows.embeds[:2], rows.lengths[:2], rows.memory)
