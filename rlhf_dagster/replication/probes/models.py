"""The newest models of a loop, and their scores."""

from collections.abc import Sequence

import numpy as np

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.chats import Prompt


def newest(loop: LoopFolder, asset: str) -> Checkpoint:
    """The model that an asset of the newest round that has it points to, or of no round; UserError where none does."""
    found = loop.checkpoint(asset, max(loop.rounds_with(asset), default=""))
    if found is None:
        raise UserError(f"{loop.root}: there is no {asset}; let the loop get there first.")
    return found


def reward_scores(loop: LoopFolder, prompts: Sequence[Prompt], texts: Sequence[str]) -> np.ndarray:
    """The newest reward model's score of each text as a response to its prompt, shape [N]."""
    from rlhf_dagster.training.reward.scores import load_reward_model, score_responses

    model = load_reward_model(newest(loop, "reward_model").folder, loop.config.compute)
    return np.asarray(score_responses(model, prompts, texts, loop.config.sampling, loop.config.compute))
