"""TRL's RewardTrainer and SFTTrainer."""

import json
import tempfile
from itertools import combinations
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from benchmarks.training.sides.measuring import Laps, main


class Marks(TrainerCallback):
    def __init__(self, laps: Laps) -> None:
        self.laps = laps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.laps.mark()


def reward_model(inputs: Path, options: dict[str, Any], laps: Laps) -> None:
    """Every pair of a comparison's responses is a row: the trainer takes pairs."""
    tokenizer = AutoTokenizer.from_pretrained(inputs / "sft")
    rows = json.loads((inputs / "data.json").read_text())
    encode = lambda text: tokenizer(text)["input_ids"]  # noqa: E731
    pairs = [
        {"chosen_ids": encode(f"{row['prompt']} {better}"), "rejected_ids": encode(f"{row['prompt']} {worse}")}
        for row in rows
        for better, worse in combinations(row["responses"], 2)
    ]
    pairs = pairs[: options["steps"] * options["sequences"] // 2]
    with tempfile.TemporaryDirectory() as folder:
        RewardTrainer(
            model=AutoModelForSequenceClassification.from_pretrained(inputs / "reward", num_labels=1),
            args=RewardConfig(
                per_device_train_batch_size=options["sequences"] // 2,
                max_length=options["max_tokens"],
                **_common(options, folder),
            ),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(pairs),
            callbacks=[Marks(laps)],
        ).train()


def sft(inputs: Path, options: dict[str, Any], laps: Laps) -> None:
    tokenizer = AutoTokenizer.from_pretrained(inputs / "sft")
    rows = json.loads((inputs / "data.json").read_text())
    encoded = []
    for row in rows:
        prompt, response = (tokenizer(text)["input_ids"] for text in (row["prompt"], row["responses"][0]))
        mask = [0] * len(prompt) + [1] * (len(response) + 1)
        encoded.append({"input_ids": [*prompt, *response, tokenizer.eos_token_id], "completion_mask": mask})
    with tempfile.TemporaryDirectory() as folder:
        SFTTrainer(
            model=AutoModelForCausalLM.from_pretrained(inputs / "sft"),
            args=SFTConfig(
                per_device_train_batch_size=options["batch_size"],
                max_length=options["max_tokens"],
                completion_only_loss=True,
                **_common(options, folder),
            ),
            processing_class=tokenizer,
            train_dataset=Dataset.from_list(encoded),
            callbacks=[Marks(laps)],
        ).train()


def _common(options: dict[str, Any], folder: str) -> dict[str, Any]:
    """Full precision without recomputation, as on the other side."""
    return {
        "output_dir": folder,
        "num_train_epochs": 1,
        "learning_rate": options["learning_rate"],
        "lr_scheduler_type": "linear",
        "bf16": False,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


if __name__ == "__main__":
    main({"reward_model": reward_model, "sft": sft})
