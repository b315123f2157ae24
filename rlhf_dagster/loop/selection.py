"""By whom a round's comparisons are chosen: at random, or by the reward model of an earlier round."""

import json

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import IMPORT_ROUND


def selecting_model(loop: LoopFolder, round_key: str) -> Checkpoint | None:
    """The newest reward model of an earlier round; None if there is none, or if comparisons are chosen at random.

    Raises UserError where its heads are to disagree, and it was trained with one.
    """
    selection = loop.config.labeling.selection
    if selection == "random":
        return None
    made = loop.rounds_with("reward_model", before=round_key)
    model = loop.checkpoint("reward_model", made[-1]) if made else None
    if model is not None and selection == "disagreement":
        _require_heads(model)
    return model


def _require_heads(model: Checkpoint) -> None:
    """A reward model with several heads has a bias for each."""
    config = json.loads((model.folder / "config.json").read_text(encoding="utf-8"))
    if not isinstance(config.get("score_bias"), list):
        raise UserError(
            f"labeling.selection is disagreement, and {model.model_id} of an earlier round was trained with one head; "
            "set it to margin or random until a round has trained one with several."
        )


def chosen_by(loop: LoopFolder, round_key: str) -> str:
    """How the round's comparisons are chosen."""
    if loop.config.labeling.selection == "random" or round_key == IMPORT_ROUND:
        return "random"
    model = selecting_model(loop, round_key)
    return (
        f"{loop.config.labeling.selection} of {model.model_id}"
        if model
        else "random, because there is no reward model yet"
    )
