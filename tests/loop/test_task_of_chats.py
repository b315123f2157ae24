"""The task `helpful` up to its labels: chats from the task itself, a tiny chat model, and ratings on three axes."""

import json
from pathlib import Path

import pandas as pd
import pytest
from loops import ROUND, asset_path, checkpoint, open_runner, run_missing, write_loop

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PROMPTS
from rlhf_dagster.records.tables import read_table
from rlhf_dagster.training.models.policies import load_tokenizer
from rlhf_dagster.training.texts.chats.encoding import reads_chats

AXES = ["helpful", "honest", "harmless"]
SETTINGS = {
    "data": {"task": "helpful", "prompts": 400, "demonstrations": 120, "pretraining_texts": 300},
    "base_model": {"tiny": {"layers": 1, "width": 32, "heads": 2, "steps": 30, "context": 96, "chat": True}},
    "sampling": {"prompt_tokens": 64, "response_tokens": 12, "fixed_length": False},
    "sft": {"epochs": 1, "max_tokens": 96, "chat": True},
    "labeling": {"kind": "rating", "comparisons_per_round": 20, "rating_axes": AXES},
    "reward_model": {"max_tokens": 96},
}


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, base_model_cache: Path) -> LoopRunner:
    runner = open_runner(write_loop(tmp_path_factory.mktemp("helpful") / "loop", **SETTINGS))
    assert run_missing(runner, "prepare").success
    assert open_next_round(runner.instance, runner.loop) == ROUND
    assert run_missing(runner, "collect_round", ROUND).success
    assert run_missing(runner, "train_round", ROUND, until="preference_labels").success
    return runner


def test_prompts_and_demonstrations_are_chats(runner: LoopRunner) -> None:
    for asset, schema, column in (("prompts", PROMPTS, "text"), ("demonstrations", DEMONSTRATIONS, "prompt")):
        found = read_table(asset_path(runner.loop, asset), schema)
        chats = prompts_of(found, column)
        assert {chat.messages[0].role for chat in chats} == {"system"}
        assert [str(chat) for chat in chats] == found[column].tolist()


def test_sft_reads_chats_and_the_base_model_plain_text(runner: LoopRunner) -> None:
    models = [load_tokenizer(checkpoint(runner.loop, asset).folder) for asset in ("base_model", "sft_checkpoint")]
    assert [reads_chats(tokenizer) for tokenizer in models] == [False, True]


def test_labels_rate_each_axis(runner: LoopRunner) -> None:
    rated = pd.read_parquet(asset_path(runner.loop, "preference_labels", ROUND))
    assert {tuple(json.loads(axes)) for axes in rated["axes"]} == {tuple(sorted(AXES))}
