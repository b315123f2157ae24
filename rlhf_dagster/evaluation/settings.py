"""Settings of evaluation and of the promotion gate."""

from pydantic import Field

from rlhf_dagster.settings import Settings


class EvaluationSettings(Settings):
    prompts: int = Field(512, ge=1)
    """Held-out prompts that every policy answers."""
    human_judgments: int = Field(600, ge=0)
    """A/B judgments asked of annotators, half against SFT and half against the behaviour policy; 0 asks for none."""


class GateSettings(Settings):
    """When a policy may become the champion."""

    min_win_rate: float = Field(0.5, ge=0, le=1)
    """The lower end of the 95% interval of the win rate against the behaviour policy must be above this, by the
    people's A/B judgments where the loop asks for them, otherwise by the reward model."""
    max_kl: float = Field(10.0, gt=0)
    """Largest mean sequence KL to SFT, in nats."""
    min_distinct: float = Field(0.95, ge=0, le=1)
    """Smallest share of distinct responses."""
    max_length_ratio: float = Field(1.5, gt=1)
    """Mean response length may be at most this many times SFT's, and at least its inverse."""
    min_judgments: int = Field(100, ge=1)
    """Fewer judgments than this are `not enough judgments`, which is never a pass."""
