"""A speech LLM trained by transformers' Trainer as one writes it first: random batches, padded, all at its defaults.

Encoder, LLM and LoRA are transformers' and peft's, the adapter between is one linear map over stacked frames; prompt,
target and loss positions are those of `kikitori train`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    WhisperFeatureExtractor,
    WhisperModel,
)

from kikitori.types import Utterance

HOP, CONVOLUTION = 160, 2
IGNORED = -100


class StockSpeechLLM(nn.Module):
    """Whisper's encoder, a linear adapter over `stride` frames side by side, and an LLM with LoRA."""

    def __init__(self, encoder: Path, llm: Path, stride: int, lora: dict[str, Any]) -> None:
        super().__init__()
        self.encoder = WhisperModel.from_pretrained(encoder, dtype=torch.float32).encoder.requires_grad_(False)
        body = AutoModelForCausalLM.from_pretrained(llm, dtype=torch.float32)
        config = LoraConfig(
            task_type="CAUSAL_LM", r=lora["rank"], lora_alpha=lora["alpha"], target_modules=lora["targets"]
        )
        self.llm = get_peft_model(body, config)
        self.stride = stride
        self.adapter = nn.Linear(stride * self.encoder.config.d_model, body.config.hidden_size)

    def forward(
        self, input_features: Tensor, num_frames: Sequence[int], labels: Sequence[Tensor], bos: int
    ) -> dict[str, Tensor]:
        """Log-mel features (batch, bins, 3000), frames of each utterance, its target with EOS; the loss of the LLM."""
        frames = self.encoder(input_features).last_hidden_state
        frames = nn.functional.pad(frames, (0, 0, 0, -frames.shape[1] % self.stride))
        rows, targets = [], []
        embed = self.llm.get_input_embeddings()
        for row, (count, label) in enumerate(zip(num_frames, labels, strict=True)):
            own = frames[row].clone()
            own[count:] = 0.0
            positions = -(-count // self.stride)
            speech = self.adapter(own[: positions * self.stride].reshape(positions, -1))
            text = embed(torch.cat([torch.tensor([bos]), label]))
            rows.append(torch.cat([speech, text]))
            targets.append(torch.cat([torch.full([positions + 1], IGNORED), label]))
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], batch_first=True)
        output = self.llm(
            inputs_embeds=pad_sequence(rows, batch_first=True),
            attention_mask=mask,
            labels=pad_sequence(targets, batch_first=True, padding_value=IGNORED),
        )
        return {"loss": output.loss, "logits": output.logits}


@dataclass(frozen=True)
class Collator:
    """Reads the files of a batch, as a data set of one's own does."""

    extractor: Any
    tokenizer: Any

    def __call__(self, rows: Sequence[Utterance]) -> dict[str, Any]:
        waveforms = [soundfile.read(row.audio_filepath, dtype="float32")[0] for row in rows]
        features = self.extractor(waveforms, sampling_rate=16000, return_tensors="pt").input_features
        eos = self.tokenizer.eos_token_id
        ids = [[*self.tokenizer((row.text or "").lower(), add_special_tokens=False).input_ids, eos] for row in rows]
        return {
            "input_features": features,
            "num_frames": [-(-len(waveform) // (HOP * CONVOLUTION)) for waveform in waveforms],
            "labels": [torch.tensor(each) for each in ids],
            "bos": self.tokenizer.bos_token_id,
        }


class _Marks(TrainerCallback):  # type: ignore[misc]
    def __init__(self, mark: Callable[[], None]) -> None:
        self.mark = mark

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.mark()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.mark()


def stock_model(encoder: Path, llm: Path, stride: int, lora: dict[str, Any]) -> tuple[StockSpeechLLM, Collator]:
    """The model, and what makes batches for it."""
    extractor, tokenizer = WhisperFeatureExtractor.from_pretrained(encoder), AutoTokenizer.from_pretrained(llm)
    return StockSpeechLLM(encoder, llm, stride, lora), Collator(extractor, tokenizer)


def train_stock(
    model: StockSpeechLLM, collator: Collator, rows: Sequence[Utterance], batch_size: int, folder: Path, mark: Any
) -> None:
    """One epoch; `mark` is called when training begins and after each step."""
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        num_train_epochs=1,
        learning_rate=1e-4,
        remove_unused_columns=False,  # ours are no data set of `datasets`
        save_strategy="no",  # it does not save tied weights of a module that is no PreTrainedModel
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    trainer = Trainer(
        model=model, args=arguments, train_dataset=list(rows), data_collator=collator, callbacks=[_Marks(mark)]
    )
    trainer.train()
