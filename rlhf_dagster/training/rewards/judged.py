"""Ratings by a judge's model as reward."""

import logging

import torch
from torch import Tensor

from rlhf_dagster.config.judging.reward import HttpReward
from rlhf_dagster.errors import UserError
from rlhf_dagster.judge.asking import Judge
from rlhf_dagster.judge.ratings import rate
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.training.rewards.text_reward import TextReward
from rlhf_dagster.training.runtime.distributed import first_text, world

_log = logging.getLogger("rlhf_dagster.training")


def judge_reward(settings: HttpReward, answers: str, purpose: str) -> TextReward:
    """Ratings as scores from -1 to 1; all ranks check the result of every call together.

    What was answered is kept in the store at the address ``answers``, and requests are counted for ``purpose``.

    Raises:
        UserError: the environment names no server; or, by a call, what :meth:`Judge.ask` raises, and where no answer
            can be read of a response and the settings give no score for that.
    """
    judge = Judge.of(settings, open_store(answers), purpose, share=1 / world())

    def reward(prompts: list[Prompt], responses: list[str]) -> Tensor:
        scores, problem = _scores(judge, settings, [str(prompt) for prompt in prompts], responses)
        # Where one rank raised alone, the others would wait for it.
        if problem := first_text(problem):
            raise UserError(problem)
        return torch.tensor(scores, dtype=torch.float32)

    return reward


def _scores(
    judge: Judge, settings: HttpReward, prompts: list[str], responses: list[str]
) -> tuple[list[float | None], str]:
    """The scores, and why there are none; empty where there are."""
    try:
        ratings = rate(judge, settings, prompts, responses)
    except UserError as error:
        return [], str(error)
    failed = ratings.scores.count(None)
    if failed and settings.unreadable is None:
        return [], (
            f"The judge {settings.model} gave no rating that can be read in {settings.tries} tries: "
            f"{ratings.problem}; correct its instructions, take another model, or set `unreadable` to a score."
        )
    if failed:
        given = f"{failed} of {len(responses)} responses got `unreadable` {settings.unreadable:g}"
        _log.warning("%s from the judge %s: %s.", given, settings.model, ratings.problem)
    return [settings.unreadable if score is None else score for score in ratings.scores], ""
