"""A tiny model of the toy language, made once for each session."""

import random
import sys
from pathlib import Path

import pytest

# Pytest's importlib mode leaves sys.path alone; the helpers are a plain module beside the tests.
sys.path.insert(0, str(Path(__file__).parent))

from toy_language import (
    COMPUTE,
    TINY,
    Tables,
    demonstration_row,
    preference_row,
    prompt_row,
    reward_spec,
    sentence,
    sft_spec,
    text_row,
    write,
)

from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PRETRAINING_TEXT, PROMPTS
from rlhf_dagster.training.models.policies import Policy, load_policy
from rlhf_dagster.training.pretraining.tiny_model import make_tiny_model
from rlhf_dagster.training.reward.train import train_reward_model
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import TrainingResult


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder, rng = tmp_path_factory.mktemp("tables"), random.Random(0)
    prompts = sorted({sentence(rng, rng.randint(2, 8)) for _ in range(80)})
    pairs = [(prompt, sentence(rng, rng.randint(2, 9))) for prompt in prompts]
    # Labels compare 2 to 4 responses, so that every batch of the reward model is ragged.
    compared = [(rng.choice(prompts), [sentence(rng, 5) for _ in range(rng.randint(2, 4))]) for _ in range(400)]
    return Tables(
        text=write(folder, "text", [text_row(i, sentence(rng, 20)) for i in range(120)], PRETRAINING_TEXT),
        prompts=write(folder, "prompts", [prompt_row(i, text) for i, text in enumerate(prompts)], PROMPTS),
        demonstrations=write(
            folder, "demonstrations", [demonstration_row(i, *pair) for i, pair in enumerate(pairs)], DEMONSTRATIONS
        ),
        preferences=write(
            folder, "preferences", [preference_row(i, *label) for i, label in enumerate(compared)], PREFERENCES
        ),
    )


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = random.Random(1)
    texts = [sentence(rng, 20) for _ in range(120)]
    return make_tiny_model(texts, TINY, tmp_path_factory.mktemp("models") / "base", COMPUTE).folder


@pytest.fixture(scope="session")
def sft_result(base: Path, tables: Tables) -> TrainingResult:
    return train_sft(sft_spec(base, tables, base.with_name("sft")))


@pytest.fixture(scope="session")
def sft(sft_result: TrainingResult) -> Path:
    return sft_result.folder


@pytest.fixture
def policy(sft: Path) -> Policy:
    return load_policy(sft, COMPUTE)


@pytest.fixture(scope="session")
def deep_sft(tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two layers, of which one can be frozen."""
    folder, rng = tmp_path_factory.mktemp("deep"), random.Random(2)
    texts = [sentence(rng, 20) for _ in range(120)]
    base = make_tiny_model(texts, TINY.changed(layers=2), folder / "base", COMPUTE).folder
    return train_sft(sft_spec(base, tables, folder / "sft")).folder


@pytest.fixture(scope="session")
def deep_reward(deep_sft: Path, tables: Tables) -> Path:
    return train_reward_model(reward_spec(deep_sft, tables, deep_sft.with_name("reward"))).folder
