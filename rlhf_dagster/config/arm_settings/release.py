"""Which of a round's policies may become the champion."""

from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_dagster.config.base import Settings

BEST = "best"
"""In place of an arm's name: the arm that does best on held-out prompts."""
CHOICE_PROMPTS = 256


class ReleaseSettings(Settings):
    """Which policy of a round the gate judges, people compare, and `promotion` makes the champion."""

    arm: Literal["best", "ppo", "rloo", "grpo", "dpo", "best_of_n_sft"] = "ppo"
    """The arm whose policy it is; no other policy of the round is promoted. PPO's is trained only where this, or
    `arms`, asks for it. `best`: of PPO's and those that `arms` names the one that does best on prompts of the split
    `validation`, before anything is measured on test prompts. Of the policies that keep the gate's rules of a response
    (KL, length, diversity, repetition, copying) it is the one with the highest win rate against the champion, by that
    of the round's reward models, on all labels and on halves, which likes the policy least."""
    prompts: int = Field(CHOICE_PROMPTS, ge=1)
    """With `arm: best`, the most validation prompts on which policies are compared."""

    @model_validator(mode="after")
    def _options_are_used(self) -> Self:
        if self.arm != BEST and self.prompts != CHOICE_PROMPTS:
            raise ValueError("`release.prompts` is for the choice of an arm; set `release.arm: best`, or leave it out")
        return self
