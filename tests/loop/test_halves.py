"""Two reward models on halves of the labels: which labels each gets, when they are trained, and what a retry saves."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loops import ROUND, asset_path, checkpoint

from rlhf_dagster.common.progress import Progress
from rlhf_dagster.lineage.manifest import label_ids, read_manifest
from rlhf_dagster.loop import halves
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.halves import SWITCHED_OFF, RewardModelHalves, half_checkpoints, split_in_halves, train_halves
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.training.runtime.resuming import TrainingStopped


def labels(prompts: list[str], split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"prompt_id": prompts, "split": split, "comparison_id": [f"c-{name}" for name in prompts]})


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=1, max_size=40), st.integers(0, 9))
def test_halves_share_no_prompt_and_lose_no_label(prompts: list[str], seed: int) -> None:
    frame = pd.concat([labels(prompts), labels(prompts, "validation")], ignore_index=True)
    found = split_in_halves(frame, seed)
    train = [half[half["split"] == "train"] for half in found]
    assert not set(train[0]["prompt_id"]) & set(train[1]["prompt_id"])
    assert sorted([*train[0].index, *train[1].index]) == list(frame.index[frame["split"] == "train"])
    assert all((half["split"] == "validation").sum() == len(prompts) for half in found)


def test_a_prompt_stays_in_its_half_when_others_come() -> None:
    few, many = labels([f"p{n}" for n in range(50)]), labels([f"p{n}" for n in range(500)])
    (few_a, _), (many_a, many_b) = (split_in_halves(frame, 7) for frame in (few, many))
    assert set(few_a["prompt_id"]) == set(many_a["prompt_id"]) & set(few["prompt_id"])
    assert len(many_b) == pytest.approx(250, abs=50)
    assert set(many_a["prompt_id"]) != set(split_in_halves(many, 8)[0]["prompt_id"])


@pytest.fixture
def loop(stages, copy_of, monkeypatch) -> LoopFolder:
    """The small loop, whose few comparisons are enough here."""
    monkeypatch.setattr(halves, "MIN_COMPARISONS", 5)
    return copy_of(stages.unjudged).loop


def train(loop: LoopFolder) -> RewardModelHalves:
    return train_halves(
        loop,
        ROUND,
        loop.config.reward_model,
        sft=checkpoint(loop, "sft_checkpoint"),
        preferences=asset_path(loop, "preference_dataset", ROUND),
        prompts=asset_path(loop, "prompts"),
        progress=Progress("halves", print),
    )


def test_each_half_is_a_reward_model_of_its_own_labels(loop) -> None:
    found = train(loop)
    assert found.unmeasured == ""
    a, b = half_checkpoints(loop, found.as_dict())
    manifests = [read_manifest(model.folder) for model in (a, b)]
    frame = pd.read_parquet(asset_path(loop, "preference_dataset", ROUND))
    of_a, of_b = (set(label_ids(manifest)) for manifest in manifests)
    assert of_a | of_b == set(frame.loc[frame["split"] == "train", "label_id"])
    assert not of_a & of_b
    assert of_a
    assert of_b
    full = read_manifest(checkpoint(loop, "reward_model", ROUND).folder)
    for manifest in manifests:
        assert [manifest[name] for name in ("config", "seed", "round")] == [full["config"], full["seed"], ROUND]
    assert not loop.models.work_folder("halves", ROUND).exists()
    assert train(loop).as_dict() == found.as_dict()


@pytest.fixture
def trained(loop, monkeypatch) -> list[str]:
    """The halves trained, by name, after a try that the stop cord ended during the second."""
    names: list[str] = []
    real = halves.make_reward_model

    def stopped_once(*arguments: Any, preferences: Path, **options: Any) -> StageResult:
        names.append(preferences.stem)
        if names == ["a", "b"]:
            raise TrainingStopped("the cord was pulled")
        return real(*arguments, preferences=preferences, **options)

    monkeypatch.setattr(halves, "make_reward_model", stopped_once)
    with pytest.raises(TrainingStopped):
        train(loop)
    return names


def test_a_retry_keeps_the_half_that_was_finished(loop, trained) -> None:
    found = train(loop)
    assert trained == ["a", "b", "b"]
    assert found.models[0].metrics["comparisons"] > 0
    assert found.as_dict() == train(loop).as_dict()


def test_a_finished_half_of_other_labels_is_not_kept(loop, trained) -> None:
    path = asset_path(loop, "preference_dataset", ROUND)
    frame = pd.read_parquet(path)
    frame.loc[frame["split"] == "train", "weight"] = 0.5
    frame.to_parquet(path)
    train(loop)
    assert trained == ["a", "b", "a", "b"]


def test_too_few_comparisons_are_said(loop, monkeypatch) -> None:
    monkeypatch.setattr(halves, "MIN_COMPARISONS", 50)
    found = train(loop)
    assert found.models == ()
    assert found.unmeasured.startswith("The over-optimisation alarm is not measured: a half of the labels holds 1")
    assert found.unmeasured.endswith("comparisons, and 50 are needed to train a reward model on it.")
    assert half_checkpoints(loop, found.as_dict()) == []


def test_an_alarm_that_is_switched_off_costs_nothing(loop, monkeypatch) -> None:
    off = replace(loop, config=loop.config.changed(gate=loop.config.gate.changed(max_reward_drift=None)))
    monkeypatch.setattr(halves, "make_reward_model", None)
    assert train(off) == RewardModelHalves(unmeasured=SWITCHED_OFF)
