"""A toy language of eight words, tables of it, and specs for a tiny model of it."""

import random
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.config.training import (
    ComputeSettings,
    DpoSettings,
    RewardModelSettings,
    SamplingSettings,
    SftSettings,
    TinyModelSettings,
)
from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id
from rlhf_dagster.records.schemas import table
from rlhf_dagster.training.specs import DpoSpec, RewardModelSpec, SftSpec

WORDS = ["red", "green", "blue", "good", "bad", "dog", "cat", "."]
COMPUTE = ComputeSettings(threads=1, device="cpu")
TINY = TinyModelSettings(layers=1, width=32, heads=2, context=24, steps=60, batch_size=16, learning_rate=1e-2)
FIXED = SamplingSettings(prompt_tokens=6, response_tokens=5, batch_size=16)
VARIABLE = FIXED.changed(fixed_length=False)


@dataclass(frozen=True)
class Tables:
    text: Path
    prompts: Path
    demonstrations: Path
    preferences: Path


def sentence(rng: random.Random, words: int) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(words))


def good_share(text: str) -> int:
    return text.split().count("good") - text.split().count("bad")


def write(folder: Path, name: str, rows: list[dict], schema: pa.Schema) -> Path:
    pq.write_table(table(rows, schema), folder / f"{name}.parquet")
    return folder / f"{name}.parquet"


def split(index: int) -> str:
    return "validation" if index % 8 == 7 else "train"


def text_row(index: int, text: str) -> dict:
    return {"text_id": content_hash(text), "text": text, "source": "toy", "split": split(index)}


def prompt_row(index: int, text: str) -> dict:
    return {"prompt_id": prompt_id(text), "text": text, "source": "toy", "user": "", "split": split(index)}


def demonstration_row(index: int, prompt: str, response: str) -> dict:
    return {
        "demonstration_id": demonstration_id(prompt, response),
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "response": response,
        "source": "toy",
        "split": split(index),
    }


def preference_row(index: int, prompt: str, responses: list[str]) -> dict:
    best = max(map(good_share, responses))
    winners = [good_share(response) == best for response in responses]
    return {
        "label_id": str(index),
        "comparison_id": str(index),
        "round": "r1",
        "kind": "best_of_k",
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "responses": responses,
        "policy_ids": ["sft"] * len(responses),
        "target": [winner / sum(winners) for winner in winners],
        "annotator": "ann-01",
        "weight": 1.0,
        "split": split(index),
    }


def sft_spec(base: Path, tables: Tables, output: Path, sampling: SamplingSettings = FIXED) -> SftSpec:
    settings = SftSettings(epochs=1, batch_size=16, learning_rate=1e-3, max_tokens=16)
    return SftSpec(base, tables.demonstrations, output, settings, sampling, seed=3, compute=COMPUTE)


def reward_spec(sft: Path, tables: Tables, output: Path) -> RewardModelSpec:
    settings = RewardModelSettings(
        epochs=3, batch_size=16, learning_rate=5e-3, max_tokens=16, normalisation_samples=128
    )
    return RewardModelSpec(sft, tables.preferences, tables.prompts, output, settings, FIXED, seed=5, compute=COMPUTE)


def dpo_spec(sft: Path, tables: Tables, output: Path) -> DpoSpec:
    settings = DpoSettings(batch_size=16, learning_rate=3e-3)
    return DpoSpec(sft, tables.preferences, output, settings, FIXED, seed=7, compute=COMPUTE)


def about_training(warnings: list[str]) -> list[str]:
    """Warnings but for those about prompts that are cut, as some of the toy language's are on purpose."""
    return [text for text in warnings if "longer than sampling.prompt_tokens, and were cut" not in text]
