"""A tiny language model under the stock trainer of transformers: `python -m tests.score.stock_trainer FOLDER`."""

import sys
import warnings
from pathlib import Path

import torch
from torch.utils.data import Dataset
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from tests.tiny import tiny_llm_config


class Rows(Dataset):
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        labels = torch.randint(3, 60, (24,), generator=torch.Generator().manual_seed(index))
        return {"input_ids": labels, "labels": labels}


class Log(TrainerCallback):
    def __init__(self, file: Path) -> None:
        self.file = file

    def on_step_end(self, _: object, state: TrainerState, *__: object, **___: object) -> None:
        with self.file.open("a") as out:
            out.write(f"done step {state.global_step}\n")


def main(folder: Path) -> None:
    warnings.simplefilter("ignore")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(tiny_llm_config("llama"))
    arguments = TrainingArguments(
        output_dir=str(folder / "run"),
        num_train_epochs=100,
        per_device_train_batch_size=4,
        save_steps=1,
        save_total_limit=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=Rows(), callbacks=[Log(folder / "log.txt")])
    run = folder / "run"
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(run)) if run.is_dir() else None)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
