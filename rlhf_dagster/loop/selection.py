"""By whom a round's comparisons are chosen: at random, or by the reward model of an earlier round."""

from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import IMPORT_ROUND


def selecting_model(loop: LoopFolder, round_key: str) -> Checkpoint | None:
    """The newest reward model of an earlier round; None if there is none, or if comparisons are chosen at random."""
    if loop.config.labeling.selection == "random":
        return None
    made = loop.rounds_with("reward_model", before=round_key)
    return loop.checkpoint("reward_model", made[-1]) if made else None


def chosen_by(loop: LoopFolder, round_key: str) -> str:
    """How the round's comparisons are chosen."""
    if loop.config.labeling.selection == "random" or round_key == IMPORT_ROUND:
        return "random"
    model = selecting_model(loop, round_key)
    return f"margin of {model.model_id}" if model else "random, because there is no reward model yet"
