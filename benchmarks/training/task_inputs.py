"""A policy and a reward model that have learned something, from the embedded task: inputs of the learning curves."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.training.inputs import preference_row, prompt_row, write_rows
from rlhf_dagster.config.training import ComputeSettings, RewardModelSettings, SamplingSettings, TinyModelSettings
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.records.schemas import PREFERENCES, PROMPTS
from rlhf_dagster.tasks.known import get_task
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.specs import RewardModelSpec

PROMPT_TOKENS, RESPONSE_TOKENS = 16, 24
TINY = TinyModelSettings(layers=2, width=64, heads=4, context=64, steps=800)
SAMPLING = SamplingSettings(prompt_tokens=PROMPT_TOKENS, response_tokens=RESPONSE_TOKENS)
COMPUTE = ComputeSettings(threads=1, device="cpu")
DOCUMENTS, COMPARISONS, COMPARED = 4000, 1000, 4


def make_task_inputs(cache: Path) -> Path:
    """A folder with `sft`, `reward`, `prompts.parquet` and `data.json`, made once."""
    folder = cache / content_hash("learning curves", TINY.model_dump(), COMPARISONS)[:16]
    if (folder / "data.json").is_file():
        return folder
    task = get_task("sentiment")
    make_tiny_model(task.pretraining_text(DOCUMENTS, 0, "train"), TINY, folder / "sft", COMPUTE)
    prompts = [text for text in task.prompts(COMPARISONS, 0, "train") if len(text.split()) <= PROMPT_TOKENS]
    write_rows(folder / "prompts.parquet", [prompt_row(text) for text in prompts], PROMPTS)
    _make_reward_model(folder, prompts)
    (folder / "data.json").write_text(json.dumps([{"prompt": text} for text in prompts]), encoding="utf-8")
    return folder


def _make_reward_model(folder: Path, prompts: list[str]) -> None:
    """Trained on samples of the policy in the order of the task's gold scores."""
    task, texts = get_task("sentiment"), iter(sample(folder / "sft", prompts, SAMPLING, 0, COMPARED, compute=COMPUTE))
    rows: list[dict[str, Any]] = []
    for index, prompt in enumerate(prompts):
        drawn = {next(texts).text for _ in range(COMPARED)}
        ordered = sorted(drawn, key=lambda text: (-task.gold_score(prompt, text), text))
        if len(ordered) == COMPARED:
            rows.append(preference_row(index, {"prompt": prompt, "responses": ordered}))
    with tempfile.TemporaryDirectory() as scratch:
        write_rows(Path(scratch) / "preferences.parquet", rows, PREFERENCES)
        spec = RewardModelSpec(
            sft=folder / "sft",
            preferences=Path(scratch) / "preferences.parquet",
            prompts=folder / "prompts.parquet",
            output=Path(scratch) / "reward",
            settings=RewardModelSettings(max_tokens=PROMPT_TOKENS + RESPONSE_TOKENS),
            sampling=SAMPLING,
            compute=COMPUTE,
        )
        train_reward_model(spec)
        _fold_bias(Path(scratch) / "reward")
        shutil.copytree(Path(scratch) / "reward", folder / "reward", dirs_exist_ok=True)


def _fold_bias(folder: Path) -> None:
    """Move the score's bias from the config, which a peer does not read, into the bias of the last norm.

    The score is w h, so that the bias goes in along w.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = load_file(folder / "model.safetensors")
    head = weights["score.weight"][0]
    bias = torch.as_tensor(config["score_bias"]).mean()
    weights["transformer.ln_f.bias"] += bias * head / head.square().sum()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config["score_bias"] = 0.0
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
