"""No policy is trained on a reward model that is not known to be better than guessing."""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.work import Work
from rlhf_dagster.config.arms import PPO
from rlhf_dagster.config.judging.reward import uses_reward_model
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.chance import cannot_be_told, not_above_chance
from rlhf_dagster.evaluation.reward_accuracy import perfect_accuracy
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.training.runtime.state_folders import OLD_IDENTITY

_CONSENT = "`reward_model.accept_chance: true`"


def chance_refusal(loop: LoopFolder, round_key: str, accuracy: Mapping[str, Any]) -> str:
    """Why PPO of a round does not start on a reward model of this accuracy; empty where it does.

    A training that version 0.1 has begun, without having looked, goes on.
    """
    accepted = _is_indifferent(loop) or _begun_by_version_0_1(loop, round_key)
    found = "" if accepted else not_above_chance(accuracy)
    if not found:
        return ""
    return (
        f"The reward model is not known to be better than guessing. {found}. Collect more labels, or set {_CONSENT} to "
        "train a policy on it all the same."
    )


def require_above_chance(loop: LoopFolder, round_key: str, accuracy: Mapping[str, Any]) -> None:
    """Raise UserError where PPO of a round does not start on a reward model of this accuracy."""
    if refusal := chance_refusal(loop, round_key, accuracy):
        raise UserError(refusal)


def _is_indifferent(loop: LoopFolder) -> bool:
    """Whether PPO starts on any reward model: somebody wants that, or other rewards are all it learns from."""
    config = loop.config
    read = uses_reward_model(config.reward) or config.ppo.value == "separate"
    return config.reward_model.accept_chance or not read


def _begun_by_version_0_1(loop: LoopFolder, round_key: str) -> bool:
    """Whether version 0.1 has left a state of the round's PPO that is newer than the round's reward model."""
    identity = Work(loop.models.work_folder(PPO.kind, round_key), loop.store).state / OLD_IDENTITY
    reward_model = loop.checkpoint("reward_model", round_key)
    if reward_model is None or not identity.is_file():
        return False
    made = datetime.fromisoformat(read_manifest(reward_model.folder)["created_at"])
    return identity.stat().st_mtime >= made.timestamp()


def require_measurable(loop: LoopFolder, preferences: Path) -> None:
    """Raise UserError where not even a reward model that is always right could be told from guessing.

    This is known before it is trained, from the labels that are kept from training.
    """
    if _is_indifferent(loop):
        return
    why = cannot_be_told(perfect_accuracy(read_parquet(preferences).to_pandas()))
    if why:
        raise UserError(
            "Not even a reward model that is always right could be told from guessing, and PPO would not start on it: "
            f"{why}. Collect more labels, raise `labeling.validation` or `labeling.held_out_annotators`, or set "
            f"{_CONSENT}."
        )
