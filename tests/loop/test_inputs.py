"""What a manifest says that a model has learned from is what its training has read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loops import ROUND, checkpoint

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import label_ids, read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings import reward_model as stage
from rlhf_dagster.loop.trainings.inputs import own_copies
from rlhf_dagster.loop.trainings.keeping import stage_work
from rlhf_dagster.loop.trainings.ppo import make_ppo_policy
from rlhf_dagster.loop.trainings.reward_model import make_reward_model
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import PREFERENCES, table


def silent(*_: object, **__: object) -> None:
    pass


def local(loop: LoopFolder, asset: str, round_key: str = "") -> Path:
    return loop.store.local(loop.asset_key(asset, round_key))


def make_again(loop: LoopFolder) -> None:
    """The data set of the round again, with the first half of its labels."""
    snapshot = loop.table("preference_dataset", ROUND)
    assert snapshot is not None
    fewer = table(snapshot.head(len(snapshot) // 2), PREFERENCES)
    loop.store.put(loop.asset_key("preference_dataset", ROUND), to_parquet(fewer))


def train(loop: LoopFolder) -> Checkpoint:
    sft, settings = checkpoint(loop, "sft_checkpoint"), loop.config.reward_model
    preferences, prompts = local(loop, "preference_dataset", ROUND), local(loop, "prompts")
    return make_reward_model(
        loop, ROUND, settings, sft=sft, preferences=preferences, prompts=prompts, progress=silent
    ).checkpoint


def before(function: Callable[..., Any], loop: LoopFolder) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        make_again(loop)
        return function(*arguments)

    return wrapped


def after(function: Callable[..., Any], loop: LoopFolder) -> Callable[..., Any]:
    def wrapped(*arguments: Any) -> Any:
        trained = function(*arguments)
        make_again(loop)
        return trained

    return wrapped


@pytest.mark.parametrize("when", [before, after])
def test_a_data_set_made_again_during_the_training_changes_nothing(stages, copy_of, monkeypatch, when) -> None:
    loop = copy_of(stages.unjudged).loop
    first, snapshot = checkpoint(loop, "reward_model", ROUND), loop.table("preference_dataset", ROUND)
    monkeypatch.setattr(stage, "run_training", when(stage.run_training, loop))
    made = train(loop)
    assert len(loop.table("preference_dataset", ROUND)) < len(snapshot)
    manifest = read_manifest(made.folder)
    assert manifest["dataset"] == snapshot_hash(snapshot)
    assert label_ids(manifest) == sorted(snapshot.loc[snapshot["split"] == "train", "label_id"])
    assert made == first


def test_a_policy_does_not_learn_from_a_reward_model_of_other_labels(stages, copy_of) -> None:
    loop = copy_of(stages.unjudged).loop
    make_again(loop)
    with pytest.raises(UserError, match="preference_dataset was made again after reward-round-0001"):
        make_ppo_policy(
            loop,
            ROUND,
            loop.config.ppo,
            sft=checkpoint(loop, "sft_checkpoint"),
            behaviour_policy=loop.registry.pin(ROUND),
            reward_model=checkpoint(loop, "reward_model", ROUND),
            prompts=local(loop, "prompts"),
            pretraining_text=local(loop, "pretraining_text"),
            preferences=local(loop, "preference_dataset", ROUND),
            progress=silent,
        )


def test_copies_of_a_killed_process_are_removed_and_those_of_a_living_one_are_not(stages, copy_of) -> None:
    loop = copy_of(stages.prepared).loop
    work = stage_work(loop, "reward", ROUND)
    left = work.folder.with_name(f".{work.folder.name}.inputs-999999:12345")
    left.mkdir(parents=True)
    with own_copies(work, local(loop, "prompts")) as (copy,):
        assert copy.name == "prompts.parquet"
        assert copy.read_bytes() == local(loop, "prompts").read_bytes()
        assert not left.exists()
        with own_copies(stage_work(loop, "ppo", ROUND)):
            assert copy.exists()
    assert not list(work.folder.parent.glob(".*inputs*"))
