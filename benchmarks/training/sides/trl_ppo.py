"""TRL's PPOTrainer (the last release that has it is 1.12.0)."""

import json
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.training.sides.measuring import Laps, main


class Marks(TrainerCallback):
    """Marks every update, and keeps what the trainer logs about it."""

    def __init__(self, laps: Laps) -> None:
        self.laps = laps
        self.logs: list[dict[str, float]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.laps.mark()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if logs and "objective/scores" in logs:
            self.logs.append(logs)


def ppo(inputs: Path, options: dict[str, Any], laps: Laps) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(inputs / "sft")
    policy = AutoModelForCausalLM.from_pretrained(inputs / "sft")
    # Fixed lengths as on the other side: neither end-of-text nor padding is drawn.
    policy.generation_config.suppress_tokens = options.get("suppressed", [0, 1, 2])
    prompts = [row["prompt"] for row in json.loads((inputs / "data.json").read_text())]
    lora = options.get("lora")
    marks = Marks(laps)
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=_config(options, folder),
            processing_class=tokenizer,
            model=policy,
            ref_model=None if lora else AutoModelForCausalLM.from_pretrained(inputs / "sft"),
            reward_model=AutoModelForSequenceClassification.from_pretrained(inputs / "reward", num_labels=1),
            value_model=AutoModelForSequenceClassification.from_pretrained(inputs / "reward", num_labels=1),
            train_dataset=Dataset.from_dict({"input_ids": tokenizer(prompts)["input_ids"]}),
            callbacks=[marks],
            peft_config=LoraConfig(**lora) if lora else None,
        )
        trainer.train()
    return {name: [log[f"objective/{key}"] for log in marks.logs] for name, key in (("reward", "scores"), ("kl", "kl"))}


def _config(options: dict[str, Any], folder: str) -> PPOConfig:
    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=options["batch_size"] // options["minibatches"],
        gradient_accumulation_steps=options["minibatches"],
        num_mini_batches=options["minibatches"],
        num_ppo_epochs=options["epochs"],
        total_episodes=options["batch_size"] * options["updates"],
        local_rollout_forward_batch_size=options["batch_size"],
        response_length=options["response_tokens"],
        temperature=1.0,
        whiten_rewards=True,
        kl_coef=options["kl_coef"],
        learning_rate=options["learning_rate"],
        adam_epsilon=1e-5,
        weight_decay=0.0,
        lr_scheduler_type="linear",
        num_sample_generations=0,
        # Full precision without recomputation, as on the other side.
        bf16=options.get("precision") == "bf16",
        gradient_checkpointing=False,
        use_cpu=options.get("device", "cpu") == "cpu",
        seed=options["seed"],
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_steps=1,
    )


if __name__ == "__main__":
    main({"ppo": ppo})
