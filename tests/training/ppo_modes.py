"""Settings of PPO that take a way of their own through the code, and rewards in Python for them."""

import os
from dataclasses import replace
from pathlib import Path

from toy_language import COMPUTE, FIXED, VARIABLE, Tables, good_share

from rlhf_dagster.config.judging.reward import EnsembleReward, FunctionReward, LengthReward, ModelReward
from rlhf_dagster.config.schedule import ScheduleSettings
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.training.specs import PpoSpec

SHORT = PpoSettings(updates=4, batch_size=16, learning_rate=3e-3, kl_horizon=64)
LORA = LoraSettings(rank=2, alpha=4.0)
SUM = EnsembleReward(
    kind="ensemble",
    parts=[
        ModelReward(weight=0.5),
        LengthReward(kind="length", unit="characters", longest=12),
        FunctionReward(kind="function", function="ppo_modes:good", weight=2),
    ],
)
MODES = {
    "separate": {"value": "separate"},
    "lora": {"lora": LORA},
    "lora_separate": {"lora": LORA, "value": "separate"},
    "frozen": {"frozen_layers": 1},
    "frozen_separate": {"frozen_layers": 1, "value": "separate", "pretraining_coef": 0.5},
    "rloo": {"advantages": "rloo", "samples_per_prompt": 4},
    "group": {"advantages": "group", "samples_per_prompt": 2, "kl_penalty": "k3"},
    "k2": {"kl_penalty": "k2", "accumulate": 3},
    "truncated": {"truncate_token": ".", "truncate_after": 1, "missing_end_penalty": -1.0},
    "trained_rest": {"truncate_token": ".", "truncated_rest": "trained", "missing_end_penalty": -1.0},
    "averaged": {"ema_decay": 0.5, "validate_every": 2},
    "best_average": {"ema_decay": 0.2, "validate_every": 2, "kl_budget": 50.0, "lora": LORA},
    "instructgpt": {
        "value": "separate",
        "ema_decay": 0.5,
        "pretraining_coef": 0.5,
        "pretraining_examples": 3,
        "accumulate": 2,
        "schedule": ScheduleSettings(shape="constant", warmup=2),
    },
    "validated": {"validate_every": 2, "kl_budget": 2.0, "validation_prompts": 7},
    "ahead": {"rollouts_ahead": 1, "value": "separate", "pretraining_coef": 0.5, "kl_penalty": "k2"},
    "frozen_ahead": {"rollouts_ahead": 1, "frozen_layers": 1},
    "function": {"validate_every": 3},
    "summed": {"validate_every": 3},
}

ALSO_MIXED = ("separate", "lora", "frozen", "averaged", "k2", "function", "trained_rest")
"""Modes of which another one has each part too: interrupted and on two ranks in the long run alone."""


def spec_of(mode: str, sft: Path, reward: Path, tables: Tables, output: Path) -> PpoSpec:
    """The toy training of a mode, from and against two-layer models."""
    settings = SHORT.changed(**MODES[mode])
    spec = PpoSpec(sft, sft, reward, tables.prompts, tables.text, output, settings, FIXED, seed=1, compute=COMPUTE)
    if mode == "summed":
        return replace(spec, reward=SUM)
    if mode == "function":
        return replace(spec, reward_model=None, reward_function="ppo_modes:good", sampling=VARIABLE)
    return spec


def good(prompts: list[str], responses: list[str]) -> list[float]:
    """More good than bad words."""
    return [float(good_share(response)) for _, response in zip(prompts, responses, strict=True)]


def raises(prompts: list[str], responses: list[str]) -> list[float]:
    raise ZeroDivisionError("division by zero")


def raises_on_the_second_rank(prompts: list[str], responses: list[str]) -> list[float]:
    if os.environ.get("RANK") == "1":
        raise ZeroDivisionError("division by zero")
    return good(prompts, responses)


def too_few(prompts: list[str], responses: list[str]) -> list[float]:
    return [1.0] * (len(responses) - 1)


def not_finite(prompts: list[str], responses: list[str]) -> list[float]:
    return [1.0] * (len(responses) - 1) + [float("nan")]


def no_numbers(prompts: list[str], responses: list[str]) -> list[str]:
    return ["good"] * len(responses)


def nothing(prompts: list[str], responses: list[str]) -> None:
    return None


NUMBER = 3
