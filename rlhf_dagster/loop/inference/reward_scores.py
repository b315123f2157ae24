"""Scores of responses by a reward model: in the process of the run, or in parts on Ray, to the same numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from rlhf_dagster.compute.shards.on_ray import is_on_ray
from rlhf_dagster.compute.shards.task import ShardTask, plain_prompts
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.sampling import shard_rows
from rlhf_dagster.records.chats import Prompt

if TYPE_CHECKING:
    from rlhf_dagster.training.texts.tokens import TokenIds


@dataclass(frozen=True)
class ScoredTogether:
    """Responses that are scored together, and so share batches."""

    prompts: Sequence[Prompt]
    """One for each text."""
    texts: Sequence[str]
    drawn: "Sequence[TokenIds | None]"
    """The ids that a policy drew, by the reward model's tokenizer, where they are known."""


def scores_of(loop: LoopFolder, reward_model: Checkpoint, answers: Sequence[ScoredTogether]) -> list[np.ndarray]:
    """Of each of ``answers`` the normalised scores [N] (float64)."""
    from rlhf_dagster.training.reward.scores import load_reward_model, score_responses

    if (found := _on_ray(loop, reward_model, answers)) is not None:
        return [np.array([mean for mean, _ in rows]) for rows in found]
    sampling, compute = loop.config.sampling, loop.config.compute
    model = load_reward_model(reward_model.folder, compute)
    return [score_responses(model, one.prompts, one.texts, sampling, compute, one.drawn) for one in answers]


def scores_by_heads(loop: LoopFolder, reward_model: Checkpoint, answers: ScoredTogether) -> np.ndarray:
    """The scores [N, H] (float64) by each of the reward model's H heads."""
    from rlhf_dagster.training.reward.scores import load_reward_model, score_by_heads

    if (found := _on_ray(loop, reward_model, [answers])) is not None:
        return np.array([heads for _, heads in found[0]])
    sampling, compute = loop.config.sampling, loop.config.compute
    model = load_reward_model(reward_model.folder, compute)
    return score_by_heads(model, answers.prompts, answers.texts, sampling, compute, answers.drawn)


def _on_ray(
    loop: LoopFolder, reward_model: Checkpoint, answers: Sequence[ScoredTogether]
) -> list[list[tuple[float, list[float]]]] | None:
    """Of each of ``answers``, of every text, the score and those by each head; None where they are not made there."""
    task = ShardTask(
        "scores",
        reward_model.folder,
        plain_prompts([prompt for one in answers for prompt in one.prompts]),
        loop.config.sampling,
        loop.config.compute,
        texts=[text for one in answers for text in one.texts],
        drawn=[ids for one in answers for ids in one.drawn],
        groups=[len(one.texts) for one in answers],
    )
    if not is_on_ray(task):
        return None
    rows = {index: (mean, heads) for index, mean, heads in shard_rows(loop, task)}
    return [[rows[index] for index in group] for group in task.groups_of_rows()]
