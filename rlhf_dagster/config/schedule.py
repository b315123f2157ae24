"""How a learning rate rises and falls. Importing this imports no torch."""

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from rlhf_dagster.config.base import Settings


class ScheduleSettings(Settings):
    """How the learning rate rises and falls over the steps of a training (in PPO: over its updates)."""

    shape: Literal["linear", "cosine", "constant"] = "linear"
    """How it falls after the warm-up, from `learning_rate` to `final` times that; `constant` stays."""
    warmup: float = Field(0.0, ge=0)
    """Steps in which it rises linearly: of n steps the first has 1/n of `learning_rate`, the n-th all of it. A number
    below 1 is a share of all steps, rounded down."""
    final: float = Field(0.0, ge=0, le=1)
    """Share of `learning_rate` that the end comes to."""

    def warmup_steps(self, steps: int) -> int:
        """How many of ``steps`` the warm-up has."""
        return math.floor(self.warmup * steps if self.warmup < 1 else self.warmup)

    def misfit(self, steps: int, stage: str) -> str:
        """Why a training of ``steps`` cannot have this schedule; empty where it can. ``stage`` names its settings."""
        if self.warmup_steps(steps) < steps:
            return ""
        return (
            f"{stage}.schedule.warmup is {self.warmup:g} steps, and the whole training has {steps}; lower it, or give "
            "it as a share of all steps, such as 0.1"
        )

    @model_validator(mode="after")
    def _a_constant_does_not_fall(self) -> Self:
        if self.shape == "constant" and self.final:
            raise ValueError("`final` is where a rate falls to, and `shape: constant` does not fall; remove one")
        return self

    @model_validator(mode="after")
    def _steps_are_whole(self) -> Self:
        if self.warmup >= 1 and self.warmup % 1:
            raise ValueError("`warmup` is a number of steps, or a share of all steps below 1")
        return self


PLAIN = ScheduleSettings()
"""Linear to 0, without a warm-up (Ziegler et al. 2019)."""
