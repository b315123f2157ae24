"""What the trainings that learn from the reward model have in common: where they start, and that it is the round's."""

from pathlib import Path

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.dataset import snapshot_hash
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.records.round_keys import IMPORTED_POLICY


def start_of(loop: LoopFolder, start: str, behaviour_policy: str, sft: Checkpoint) -> Checkpoint:
    """The checkpoint that a training starts from, by its setting `start`: ``sft`` or ``behaviour``."""
    if start == "sft" or behaviour_policy in (sft.model_id, IMPORTED_POLICY):
        return sft
    return loop.policy(behaviour_policy)


def require_trained_on(labels: Path, reward_model: Checkpoint) -> None:
    """Raise UserError where a reward model has read other labels than those that the policy's manifest will name."""
    read = read_manifest(reward_model.folder)["dataset"]
    if read not in (None, snapshot_hash(read_parquet(labels).to_pandas())):
        raise UserError(
            f"preference_dataset was made again after {reward_model.model_id} had been trained on it; make the reward "
            "model again first."
        )
