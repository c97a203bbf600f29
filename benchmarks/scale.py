"""How long training takes on one node and on a cluster: a simulator of throughput, failures and data.

python benchmarks/scale.py                 # the table of docs/scale.md
python benchmarks/scale.py measure MANIFEST    # what of it is measured here: reading, checkpoints, FLOPs of a step

Failures come at random (exponential), checkpoints are written every √(2 · write · MTBF) (Young 1974); what was
computed since the last one is lost, and a restart costs time. Everything assumed is in `Assumed`.
"""

import math
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

HOUR = 3600.0


@dataclass(frozen=True)
class Assumed:
    """Attributes: units in the names, sources in docs/scale.md."""

    peak_tflops: float = 989.0  # H100, bf16, dense
    utilisation: float = 0.30
    node_gb_per_s: float = 450.0  # NVLink, each way
    fabric_gb_per_s: float = 50.0  # InfiniBand NDR, per GPU
    gpu_mtbf_hours: float = 50_678.0  # Llama 3: 419 unexpected interruptions in 54 days of 16,384 GPUs
    restart_s: float = 600.0
    disk_gb_per_s: float = 0.05  # a process, hashed and synced: measured on a busy machine
    audio_kb_per_s: float = 3.0  # Opus: measured
    seconds_per_gpu_batch: float = 240.0
    gpus_per_node: int = 8


@dataclass(frozen=True)
class Model:
    """A speech LLM.

    Attributes:
        encoder: Parameters of the encoder.
        frames: Its frames a second of audio.
        encoder_passes: FLOPs of all passes by those of the forward pass: 1 frozen, 3 learning, 4 computed again.
        llm: Parameters of the LLM that multiply (without the input embeddings).
        positions: Positions of the LLM a second of audio, labels included.
        llm_passes: 3 learning, 2 with LoRA, and 1 more where layers are computed again.
        learning: Parameters that learn.
    """

    name: str
    encoder: float
    frames: float
    encoder_passes: float
    llm: float
    positions: float
    llm_passes: float
    learning: float
    sharded: bool

    @property
    def flops_per_second(self) -> float:
        """FLOPs of training for a second of audio: 2 for each parameter, position and pass."""
        encoder = self.encoder * self.frames * self.encoder_passes
        return 2.0 * (encoder + self.llm * self.positions * self.llm_passes)

    @property
    def message_bytes(self) -> float:
        """What a GPU sends in a step, float32: gradients twice (ring); with FSDP2 weights twice, gradients once."""
        return 4.0 * (2.0 * (self.encoder + self.llm) + self.learning) if self.sharded else 8.0 * self.learning

    @property
    def checkpoint_bytes(self) -> float:
        """Weights that learn, two averages and a copy of the best ones, float32."""
        return 16.0 * self.learning


MODELS = (
    Model("0.6 B encoder frozen, 7 B LLM with LoRA, DDP", 0.64e9, 50, 1, 6.5e9, 16.5, 3, 0.04e9, sharded=False),
    Model("0.6 B encoder and 1.5 B LLM learn, DDP", 0.64e9, 50, 4, 1.3e9, 16.5, 4, 2.2e9, sharded=False),
    Model("0.6 B encoder and 7 B LLM learn, FSDP2", 0.64e9, 50, 4, 6.5e9, 16.5, 4, 8.3e9, sharded=True),
)


@dataclass(frozen=True)
class Plan:
    """What a run takes."""

    step_s: float
    audio_per_s: float
    days: float
    interval_s: float
    lost: float
    failures: float
    node_mb_per_s: float


def plan(model: Model, hours: float, nodes: int, assumed: Assumed = Assumed()) -> Plan:
    """One pass over so many hours of speech."""
    gpus = nodes * assumed.gpus_per_node
    compute = (
        model.flops_per_second * assumed.seconds_per_gpu_batch / (assumed.peak_tflops * 1e12 * assumed.utilisation)
    )
    link = assumed.node_gb_per_s if nodes == 1 else assumed.fabric_gb_per_s
    step = max(compute, model.message_bytes / (link * 1e9))  # sent while it computes
    rate = gpus * assumed.seconds_per_gpu_batch / step
    work = hours * HOUR / rate
    mtbf = assumed.gpu_mtbf_hours * HOUR / gpus
    writers = gpus if model.sharded else 1  # a copy is written by the first process
    write = model.checkpoint_bytes / (writers * assumed.disk_gb_per_s * 1e9) + 5.0
    interval = math.sqrt(2.0 * write * mtbf)
    runs = [simulate(work, interval, write, mtbf, assumed.restart_s, seed) for seed in range(200)]
    wall = sum(seconds for seconds, _ in runs) / len(runs)
    failures = sum(count for _, count in runs) / len(runs)
    per_node = rate / nodes * assumed.audio_kb_per_s / 1000
    return Plan(step, rate, wall / 86400, interval, 1.0 - work / wall, failures, per_node)


def simulate(work: float, interval: float, write: float, mtbf: float, restart: float, seed: int) -> tuple[float, int]:
    """Seconds until so much work is done and saved, and failures on the way."""
    draw = random.Random(seed)
    done = clock = 0.0
    failures = 0
    fails_at = draw.expovariate(1.0 / mtbf)
    while done < work:
        piece = min(interval, work - done)
        if clock + piece + write > fails_at:
            clock, failures = fails_at + restart, failures + 1
            fails_at = clock + draw.expovariate(1.0 / mtbf)
            continue
        clock, done = clock + piece + write, done + piece
    return clock, failures


def table() -> None:
    print("model | hours | nodes | step | audio s per s | days | checkpoint every | lost | failures | read per node")
    for model in MODELS:
        for hours in (25_000, 500_000):
            for nodes in (1, 64):
                found = plan(model, hours, nodes)
                print(
                    f"{model.name} | {hours:,} | {nodes} | {found.step_s:.2f} s | {found.audio_per_s:,.0f} |"
                    f" {found.days:.2g} | {found.interval_s / 60:.0f} min | {found.lost:.1%} | {found.failures:.1f} |"
                    f" {found.node_mb_per_s:.1f} MB/s"
                )
    model, mtbf = MODELS[2], Assumed().gpu_mtbf_hours * HOUR / 512
    work, write = 10 * 86400.0, model.checkpoint_bytes / (512 * Assumed().disk_gb_per_s * 1e9) + 5.0
    print("\nten days of work on 64 nodes, by the interval of checkpoints: share lost")
    for minutes in (5, 15, round(math.sqrt(2 * write * mtbf) / 60), 60, 240, 720):
        runs = [simulate(work, minutes * 60.0, write, mtbf, Assumed().restart_s, seed)[0] for seed in range(200)]
        print(f"{minutes} min: {1 - work * len(runs) / sum(runs):.1%}")


def measure(manifest: Path) -> None:
    """What is measured here: one thread."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoModelForCausalLM, Qwen2Config

    from kikitori.data.manifest import read_manifest
    from kikitori.io.audio import read_audio
    from kikitori.train.parallel.shards import write_shards
    from memory import LABELS, POSITIONS, ROWS, SHAPES

    rows = read_manifest(manifest).utterances[:200]
    seconds = sum(row.duration for row in rows)
    num_bytes = sum(Path(row.audio_filepath).stat().st_size for row in rows)
    started = time.process_time()
    for row in rows:
        read_audio(row.audio_filepath)
    spent = time.process_time() - started
    print(
        f"reading: {seconds / spent:.0f} s of audio a second of processor time,"
        f" {num_bytes / seconds / 1000:.1f} kB a second of audio"
    )
    with tempfile.TemporaryDirectory() as folder:
        tensors = {str(index): torch.randn(2**24) for index in range(16)}
        started = time.perf_counter()
        write_shards(Path(folder), {"model": tensors})
        print(f"checkpoint: {16 * 2**26 / 1e9 / (time.perf_counter() - started):.2f} GB a second")
    hidden, inner, layers, heads, keys, vocabulary, tied = SHAPES["0.5B"]
    config = Qwen2Config(
        hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=keys, vocab_size=vocabulary, tie_word_embeddings=tied,
    )  # fmt: skip
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        llm = AutoModelForCausalLM.from_config(config)
        embeds = torch.empty(ROWS, POSITIONS, hidden, requires_grad=True)
        states = llm.model(None, {"full_attention": None}, inputs_embeds=embeds, use_cache=False).last_hidden_state
        llm.lm_head(states[:, -LABELS:]).sum().backward()
    body = sum(p.numel() for p in llm.model.layers.parameters())
    assumed = 6.0 * ROWS * (body * POSITIONS + hidden * vocabulary * LABELS)
    print(f"FLOPs of a step, counted by those of 6 a parameter and position: {counter.get_total_flops() / assumed:.3f}")


if __name__ == "__main__":
    measure(Path(sys.argv[2])) if sys.argv[1:2] == ["measure"] else table()
