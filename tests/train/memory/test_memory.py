import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from kikitori.errors import ConfigError
from kikitori.model.adapters.lora import Lora, attach_encoder_lora, attach_lora
from kikitori.model.decoder.llm import forward, project
from kikitori.model.encoder import SpeechEncoder, freeze
from kikitori.train.build.task import build_task
from kikitori.train.memory.estimate import Estimate, LiveTensors, estimate, fits, share
from kikitori.train.memory.recompute import checkpoint_activations
from kikitori.train.recipe.optim import Run
from kikitori.train.run import dry_run, train
from kikitori.train.tasks.base import BatchPosition
from tests.crossed import crossed
from tests.tiny import ENCODERS, LLMS, tiny_encoder_config, tiny_llm, tiny_speech_llm
from tests.train.helpers import (
    LLAMA,
    acoustic_recipe,
    make_recipe,
    speech_llm_recipe,
    text_recipe,
    write_recipe,
)

WITHIN = 1.6
"""Factor between the estimate and what the process grew by."""
LORA = {"rank": 2, "alpha": 4.0, "dropout": 0.1, "targets": None}


def gradients(module, loss):
    torch.manual_seed(5)
    np.random.seed(5)  # transformers' masking draws from this generator
    loss().backward()
    return {name: parameter.grad for name, parameter in module.named_parameters() if parameter.grad is not None}


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize(("family", "policy"), crossed(ENCODERS, ("none", "conv_front_end", "lora")))
def test_an_encoder_that_computes_again_has_the_same_gradients(family, policy):
    found, held = [], []
    for again in (False, True):
        torch.manual_seed(0)
        encoder = SpeechEncoder(tiny_encoder_config(family))
        encoder.model.config.layerdrop = 0.0
        freeze(encoder, "none" if policy == "lora" else policy)
        if policy == "lora":
            attach_encoder_lora(encoder, Lora(**LORA))
        if again:
            checkpoint_activations(encoder)
        waveforms, lengths = torch.randn(2, 16000), torch.tensor([16000, 9000])

        def loss(encoder=encoder, waveforms=waveforms, lengths=lengths):
            output = encoder.train()(waveforms, lengths, layers=[1])
            return output.frames.square().mean() + output.intermediate[0].square().mean()

        found.append(gradients(encoder, loss))
        with LiveTensors() as tensors:
            kept = loss()
            held.append(tensors.live)
        del kept
    assert_close(*found)
    assert held[1] < held[0]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("family", LLMS)
def test_an_llm_that_computes_again_has_the_same_gradients(family, lora):
    found, held = [], []
    for again in (False, True):
        llm = tiny_llm(family)
        torch.manual_seed(1)
        llm = (attach_lora(llm, Lora(**LORA)) if lora else llm).train()
        if again:
            checkpoint_activations(llm)
        embeds = torch.randn(2, 30, 32, generator=torch.Generator().manual_seed(2))

        def loss(llm=llm, embeds=embeds):
            return project(llm, forward(llm, embeds, torch.tensor([30, 17]))[:, :17]).square().mean()

        found.append(gradients(llm, loss))
        with LiveTensors() as tensors:
            kept = loss()
            held.append(tensors.live)
        del kept
    assert_close(*found)
    assert held[1] < held[0]


def test_a_frozen_llm_passes_gradients_on_without_its_own(corpus, tmp_path):
    found = []
    for again in (False, True):
        values = speech_llm_recipe(
            llm={"policy": "frozen"}, encoder={"freeze_conv_front_end": True}, run={"gradient_checkpointing": again}
        )
        torch.manual_seed(1)
        task = build_task(make_recipe(tmp_path, corpus, values), lambda _: None)
        task.module.train()
        batch = task.load([0, 3], 0)
        found.append(gradients(task.module, lambda t=task, b=batch: t.loss(b, BatchPosition(0, 0, 0.0))[0]))
    assert_close(*found)
    assert not any(name.startswith("model.llm.") for name in found[0])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_that_computes_again_ends_where_others_do(corpus, tmp_path, precision):
    models = []
    for again in (False, True):
        values = speech_llm_recipe(run={"gradient_checkpointing": again, "precision": precision, "epochs": 1})
        train(write_recipe(tmp_path / "recipe.yaml", corpus, values), tmp_path / str(again))
        models.append((tmp_path / str(again) / "model" / "model.safetensors").read_bytes())
    assert models[0] == models[1]


def test_a_model_that_cannot_compute_again_is_refused():
    model = tiny_speech_llm()
    model.llm.supports_gradient_checkpointing = False
    with pytest.raises(ConfigError, match=r"run\.gradient_checkpointing: GPTNeoXForCausalLM cannot compute"):
        checkpoint_activations(model)


def test_live_tensors_are_what_autograd_keeps():
    net = nn.Sequential(*[nn.Sequential(nn.Linear(100, 100), nn.GELU()) for _ in range(10)])
    inputs = torch.randn(1000, 100)
    size = 1000 * 100 * 4
    with LiveTensors() as tensors:
        loss = net(inputs).sum()
        assert tensors.live == 19 * size + 4  # the last output is not needed
        assert tensors.peak == 20 * size + 4
        loss.backward()
        del loss
        assert tensors.live == 10 * (100 * 100 + 100) * 4  # the gradients
    with LiveTensors() as tensors, torch.no_grad():
        net(inputs)
    assert tensors.peak == 3 * size
    with LiveTensors() as tensors:
        views = [inputs.T, net[0][0].weight.view(-1)]
        assert tensors.live == 0
    del views


def test_the_parts_of_an_estimate():
    net = nn.ModuleDict({"a": nn.Linear(1000, 100, bias=False), "b": nn.BatchNorm1d(100)})
    net["c"] = nn.Linear(1000, 100, bias=False)
    net["c"].weight = net["a"].weight  # counted once
    megabyte = 400_000
    found = estimate(net, Run(epochs=1, average_best=3), 5)
    assert found.gradients == megabyte + 800
    assert found.weights == megabyte + 1608
    assert (found.optimizer, found.copies, found.activations) == (2 * found.gradients, 3 * found.gradients, 5)
    assert found.total == found.weights + 6 * found.gradients + 5
    assert estimate(net, Run(epochs=1, average_last=2), 0).copies == 2 * found.gradients
    net["a"].requires_grad_(False)
    assert estimate(net, Run(epochs=1), 0).gradients == 800
    assert Estimate(3 * 2**30, 0, 0, 2**19, 2**20).lines() == [
        "memory: weights 3,072 MB",
        "memory: gradients 0.00 MB",
        "memory: AdamW 0.00 MB",
        "memory: copies of the best weights 0.50 MB",
        "memory: activations of the largest batch 1 MB",
        "memory: total 3,074 MB, libraries and data not counted",
    ]


def test_a_share_of_an_estimate():
    llm = tiny_llm("llama")
    alone, run = estimate(llm, Run(epochs=1), 7), Run(epochs=1)
    two = share(llm, run, 7, 2)
    assert (two.weights, two.gradients, two.optimizer) == tuple(
        size // 2 for size in (alone.weights, alone.gradients, alone.optimizer)
    )
    assert two.activations == 7
    layer = sum(parameter.nbytes for parameter in llm.model.layers[0].parameters())
    outside = sum(p.nbytes for p in llm.parameters()) - len(llm.model.layers) * layer
    assert two.gathered == 2 * outside + 5 * layer
    assert two.total == sum((two.weights, two.gradients, two.optimizer, two.copies, 7, two.gathered))
    for parameter in llm.parameters():
        parameter.requires_grad_(False)
    assert share(llm, run, 7, 2).gathered == outside + 4 * layer


def test_what_fits_on_a_gpu():
    net = nn.Linear(2**14, 2**14, bias=False, device="meta")  # 1 GB, 4 with gradients and AdamW, 5 with a copy
    assert fits(net, Run(epochs=1), 2**30, 7) == [
        "GPU of 7 GB, one process, or DDP: 6.0 GB, fits",
        "GPU of 7 GB, fsdp over 2: 5.5 GB, fits",
        "GPU of 7 GB, fsdp over 8: 3.6 GB, fits",
        "GPU of 7 GB, fsdp over 64: 3.1 GB, fits",
    ]
    assert fits(net, Run(epochs=1), 2**30, 6)[0] == "GPU of 6 GB, one process, or DDP: 6.0 GB, does not fit"


def test_a_dry_run_takes_the_largest_batch_and_prints_its_memory(corpus, tmp_path):
    for values in (acoustic_recipe(), text_recipe()):
        lines = dry_run(write_recipe(tmp_path / "recipe.yaml", corpus, values))
        assert [line.rpartition(" ")[0].rpartition(" ")[0] for line in lines if line.startswith("memory: ")][:5] == [
            "memory: weights",
            "memory: gradients",
            "memory: AdamW",
            "memory: copies of the best weights",
            "memory: activations of the largest batch",
        ]
    assert dry_run(tmp_path / "recipe.yaml", gpu_memory=80)[-2].startswith("GPU of 80 GB, fsdp over 64: ")
    found = dry_run(
        write_recipe(
            tmp_path / "recipe.yaml", corpus, acoustic_recipe(data={"max_batch_size": 3, "batch_seconds": 9.0})
        )
    )
    assert any(line.startswith("largest batch: 3 utterances") for line in found)


LARGE = {**LLAMA, "hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 4, "vocab_size": 4000}
MEASURE = """
import sys
from pathlib import Path
from kikitori.train.run import dry_run, train
import torch, peft, kikitori.train.build.task, kikitori.train.loop.curves
recipe, folder = sys.argv[1:]
torch.nn.Linear(8, 8)(torch.randn(2, 8)).sum().backward()
def kilobytes(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1])
before = kilobytes("VmRSS:")
train(recipe, Path(folder))
print(kilobytes("VmHWM:") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_estimate_is_near_what_a_run_takes(corpus, tmp_path):
    values = text_recipe(
        text={"transcripts": [{"path": "manifest.jsonl", "split": "train", "repeat": 30}], "batch_labels": 2500},
        llm={"config": LARGE},
        run={"epochs": 1, "gradient_checkpointing": True},
    )
    recipe = write_recipe(tmp_path / "recipe.yaml", corpus, values)
    total = next(line for line in dry_run(recipe) if line.startswith("memory: total"))
    estimated = float(total.split()[2].replace(",", "")) * 2**20
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(recipe), str(tmp_path / "run")],
        capture_output=True, text=True, check=True, cwd=root, env=child_environment(root),
    )  # fmt: skip
    measured = int(done.stdout) * 1024
    sys.stdout.write(f"{estimated / 2**20} {measured / 2**20}\n")
    assert estimated / WITHIN < measured < estimated * WITHIN


def child_environment(root):
    # Else the C library keeps much of what was freed.
    return {
        **os.environ,
        "MALLOC_MMAP_THRESHOLD_": "262144",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{root / 'src'}{os.pathsep}{root}",
    }
