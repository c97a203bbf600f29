"""A tiny `rinna/nue-asr` in the published layout, and its forward pass wired by hand, without model code of ours."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, HubertConfig, HubertModel

from tests.tiny import WAVE, shake

TEXTS = (
    "吾輩は猫である。名前はまだ無い。",
    "どこで生れたかとんと見当がつかぬ。",
    "何でも薄暗いじめじめした所でニャーニャー泣いていた事だけは記憶している。",
    "吾輩はここで始めて人間というものを見た。",
    "しかもあとで聞くとそれは書生という人間中で一番獰悪な種族であったそうだ。",
    "Hello, world 2024! <b>ABC</b> [x]",
)
SPIECE = {
    "vocab_size": 420,
    "byte_fallback": True,
    "add_dummy_prefix": False,
    "remove_extra_whitespaces": False,
    "pad_id": 0,
    "unk_id": 1,
    "bos_id": 2,
    "eos_id": 3,
    "pad_piece": "[PAD]",
    "unk_piece": "[UNK]",
    "user_defined_symbols": "[CLS],[SEP],[MASK],<NL>",
}
BOS, EOS, SEP, VOCABULARY = 2, 3, 5, 448
TOKENIZER_CONFIG = {
    "eos_token": "</s>",
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "extra_ids": 0,
    "additional_special_tokens": [],
    "sp_model_kwargs": {},
    "bos_token": "<s>",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
    "do_lower_case": False,
    "tokenizer_class": "T5Tokenizer",
}
CONFIG: dict[str, Any] = {
    "architectures": ["NueASRModel"],
    "audio_encoder_config": {
        "architectures": ["HubertModel"],
        "model_type": "hubert",
        "torch_dtype": "float16",
        **{key: list(value) if isinstance(value, tuple) else value for key, value in WAVE.items()},
    },
    "bridge_conv_kernel_size": [4, 4],
    "bridge_conv_stride": [2, 2],
    "llm_config": {
        "architectures": ["GPTNeoXForCausalLM"],
        "attention_dropout": 0.1,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "hidden_dropout": 0.1,
        "hidden_size": 32,
        "intermediate_size": 64,
        "model_type": "gpt_neox",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "rotary_pct": 1.0,
        "torch_dtype": "float16",
        "use_parallel_residual": False,
        "vocab_size": VOCABULARY,
    },
    "model_type": "nue_asr",
    "torch_dtype": "float16",
    "transformers_version": "4.33.2",
}


@dataclass(frozen=True)
class Release:
    """The release's parts in float32, with the numbers that its files hold."""

    hubert: HubertModel
    convs: nn.ModuleList
    proj: nn.Linear
    llm: GPTNeoXForCausalLM

    def prefix(self, waveform: NDArray[np.float32]) -> Tensor:
        """LLM input (1, positions, dim) before the transcript."""
        hidden = self.hubert(torch.from_numpy(waveform)[None]).last_hidden_state.transpose(1, 2)
        for conv in self.convs:
            hidden = nn.functional.gelu(conv(hidden))
        table = self.llm.get_input_embeddings()
        bos, sep = (table(torch.tensor([[label]])) for label in (BOS, SEP))
        return torch.cat([bos, self.proj(hidden.transpose(1, 2)), sep], dim=1)

    @torch.inference_mode()
    def logits(self, waveform: NDArray[np.float32], labels: Sequence[int]) -> Tensor:
        """Logits (labels + 1, vocab) of each label and of what follows the last."""
        embeds = self.llm.get_input_embeddings()(torch.tensor([list(labels)]))
        return self.llm(inputs_embeds=torch.cat([self.prefix(waveform), embeds], dim=1)).logits[0, -len(labels) - 1 :]

    @torch.inference_mode()
    def generate(self, waveform: NDArray[np.float32]) -> list[int]:
        """Labels that transformers' own greedy search writes, with the release's limits."""
        embeds = self.prefix(waveform)
        (labels,) = self.llm.generate(
            inputs_embeds=embeds,
            attention_mask=torch.ones(embeds.shape[:2], dtype=torch.long),
            do_sample=False,
            min_new_tokens=2,
            max_new_tokens=int(4 * len(waveform) / 16000 + 20 + 0.5),
            bos_token_id=BOS,
            eos_token_id=EOS,
            pad_token_id=0,
        ).tolist()
        return labels[: labels.index(EOS)] if EOS in labels else labels


def release(dtype: torch.dtype = torch.float16, seed: int = 6) -> Release:
    """Random parts whose numbers survive a stay in `dtype`."""
    torch.manual_seed(seed)
    llm_config = {key: value for key, value in CONFIG["llm_config"].items() if key != "torch_dtype"}
    audio_config = {key: value for key, value in CONFIG["audio_encoder_config"].items() if key != "torch_dtype"}
    parts = Release(
        HubertModel(HubertConfig(**audio_config)),
        nn.ModuleList(nn.Conv1d(32, 32, 4, 2) for _ in range(2)),
        nn.Linear(32, 32),
        GPTNeoXForCausalLM(GPTNeoXConfig(**llm_config)),
    )
    for part, amount in ((parts.hubert, 0.1), (parts.convs, 0.1), (parts.proj, 0.3), (parts.llm, 0.3)):
        part.eval()
        shake(part, seed, amount)
    parts.llm.get_output_embeddings().weight.data[EOS] *= -2.0  # some transcripts end by themselves, some would at once
    for part in (parts.hubert, parts.convs, parts.proj, parts.llm):
        for parameter in part.parameters():
            parameter.data = parameter.data.to(dtype).float()
    return parts


def published_tensors(parts: Release, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors by the names that transformers 4.33 gave them."""
    named = {f"audio_encoder.{name}": tensor for name, tensor in parts.hubert.state_dict().items()}
    named |= {f"bridge_convs.{name}": tensor for name, tensor in parts.convs.state_dict().items()}
    named |= {f"bridge_proj.{name}": tensor for name, tensor in parts.proj.state_dict().items()}
    named |= {f"llm.{name}": tensor for name, tensor in parts.llm.state_dict().items()}
    old = {
        "parametrizations.weight.original0": "weight_g",
        "parametrizations.weight.original1": "weight_v",
        "llm.lm_head": "llm.embed_out",
    }
    for new, name in old.items():
        named = {key.replace(new, name): tensor for key, tensor in named.items()}
    return {name: tensor.to(dtype).contiguous() for name, tensor in named.items()}


def save_published(
    folder: Path,
    tensors: dict[str, Tensor] | None = None,
    *,
    dtype: torch.dtype = torch.float16,
    pickled: bool = False,
    shards: int = 1,
) -> Path:
    """Writes the release; by default the tensors of `release(dtype)`, in one safetensors file."""
    tensors = published_tensors(release(dtype), dtype) if tensors is None else tensors
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    (folder / "spiece.model").write_bytes(train_spiece())
    save_weights(folder, tensors, pickled=pickled, shards=shards)
    return folder


def save_weights(folder: Path, tensors: dict[str, Tensor], *, pickled: bool = False, shards: int = 1) -> None:
    stem, suffix = ("pytorch_model", "bin") if pickled else ("model", "safetensors")

    def save(name: str, part: dict[str, Tensor]) -> None:
        if pickled:
            torch.save(part, folder / name)
        else:
            save_file(part, folder / name, metadata={"format": "pt"})

    if shards == 1:
        save(f"{stem}.{suffix}", tensors)
        return
    weight_map = {}
    for number in range(shards):
        part = dict(list(tensors.items())[number::shards])
        name = f"{stem}-{number + 1:05d}-of-{shards:05d}.{suffix}"
        save(name, part)
        weight_map |= dict.fromkeys(part, name)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


@cache
def train_spiece(**changes: Any) -> bytes:
    """A SentencePiece model as the release has one, or with other settings."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        num_threads=1,
        **(SPIECE | changes),
    )
    return model.getvalue()
