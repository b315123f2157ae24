"""From the settings of a reward to the function that computes it from texts."""

from dataclasses import dataclass

from rlhf_dagster.config.judging.reward import (
    ClassifierReward,
    FormatReward,
    FunctionReward,
    HttpReward,
    LengthReward,
)
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.rewards.classifier import load_classifier
from rlhf_dagster.training.rewards.judged import judge_reward
from rlhf_dagster.training.rewards.python_function import load_reward_function
from rlhf_dagster.training.rewards.rules import format_reward, length_reward
from rlhf_dagster.training.rewards.text_reward import TextReward

TextTerm = FunctionReward | LengthReward | FormatReward | ClassifierReward | HttpReward
"""Rewards that read text; the reward model reads tokens."""


@dataclass(frozen=True)
class Surroundings:
    """What rewards need beside their settings."""

    compute: ComputeSettings
    answers: str
    """Address of the store that keeps what judges have answered."""
    purpose: str
    """What a judge's requests are counted for."""


def text_reward(term: TextTerm, around: Surroundings) -> TextReward:
    """The reward, not yet weighted; raises UserError where something that it names cannot be opened."""
    match term:
        case FunctionReward():
            return load_reward_function(term.function)
        case LengthReward():
            return length_reward(term)
        case FormatReward():
            return format_reward(term)
        case ClassifierReward():
            return load_classifier(term, around.compute)
        case HttpReward():
            return judge_reward(term, around.answers, around.purpose)
