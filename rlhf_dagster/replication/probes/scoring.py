"""Scores of responses by a loop's last reward model and by its gold judge."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import tokenizer_digest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.chats import prompts_of
from rlhf_dagster.records.tables import records


def last_round(loop: LoopFolder, asset: str) -> str:
    """Key of the newest round that has an asset; raises UserError where none has."""
    made = loop.rounds_with(asset)
    if not made:
        raise UserError(f"{loop.root}: no round has {asset}; let the variant end later.")
    return made[-1]


def proxy_scores(loop: LoopFolder, reward_model: Checkpoint, responses: pd.DataFrame) -> np.ndarray:
    """A reward model's scores, shape [n], of rows of COMPLETIONS."""
    from rlhf_dagster.training.models.responses import completion_ids
    from rlhf_dagster.training.reward.scores import load_reward_model, score_responses

    own, config = tokenizer_digest(reward_model.folder), loop.config
    drawn = [completion_ids(row, own) for row in records(responses)]
    model = load_reward_model(reward_model.folder, config.compute)
    texts: Sequence[str] = responses["text"].tolist()
    scores = score_responses(model, prompts_of(responses), texts, config.sampling, config.compute, drawn)
    return np.asarray(scores, dtype=np.float64)


def gold_scores(loop: LoopFolder, responses: pd.DataFrame) -> np.ndarray:
    """The gold judge's scores of the same, shape [n]."""
    return np.array(list(map(loop.task.gold_score, responses["prompt"], responses["text"])), dtype=np.float64)
