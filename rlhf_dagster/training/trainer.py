"""What the Trainer subclasses of SFT and of the reward model share."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rlhf_dagster.training.specs import Progress


class ReportLoss(TrainerCallback):
    """Keeps the loss of every step and passes it on."""

    def __init__(self, progress: Progress) -> None:
        self.losses: list[float] = []
        self.progress = progress

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs = kwargs["logs"]
        if "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self.progress(state.global_step, state.max_steps, loss=self.losses[-1])


def fit(trainer: Trainer, progress: Progress) -> list[float]:
    """Train; returns the loss of every step."""
    report = ReportLoss(progress)
    trainer.add_callback(report)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return report.losses


@contextmanager
def training_arguments(device: torch.device, seed: int, **arguments: Any) -> Iterator[TrainingArguments]:
    """Arguments for a Trainer that writes nothing: the stage saves its own checkpoint.

    The learning rate falls linearly to 0 without warm-up and gradients are not clipped (Ziegler et al. 2019,
    lm-human-preferences `utils/core.py`, `minimize`).
    """
    with tempfile.TemporaryDirectory() as folder:
        yield TrainingArguments(
            output_dir=folder,
            seed=seed,
            use_cpu=device.type == "cpu",
            dataloader_pin_memory=device.type != "cpu",
            optim="adamw_torch_fused",
            lr_scheduler_type="linear",
            warmup_steps=0,
            max_grad_norm=0.0,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            **arguments,
        )
