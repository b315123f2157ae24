"""A model removed by a person's word, where nothing needs it."""

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.removals import RemovalRecord
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.retention import stored_models


def retire(loop: LoopFolder, model_id: str, by: str, reason: str) -> RemovalRecord:
    """Remove a model that only `models.keep` keeps; it, who said so and why stay on record.

    Raises UserError without a name or a reason, and where something else needs the model.
    """
    if not (by.strip() and reason.strip()):
        raise UserError("What is retired stays on record: give your name and a reason.")
    found = next((model for model in stored_models(loop, keep=0) if model.model_id == model_id), None)
    if found is None:
        gone = loop.removals.removed().get(model_id)
        why = gone.sentence if gone else f"`rlhf models {loop.said}` lists those that there are."
        raise UserError(f"There is no model {model_id}: {why}")
    if found.needed:
        raise UserError(f"{model_id} stays: {'; '.join(found.needed)}.")
    return loop.removals.remove(found.model_id, found.path, found.round_key, found.size, f"{by}: {reason.rstrip('.')}")
