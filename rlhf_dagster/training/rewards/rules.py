"""Rewards by rule: the length of a response, and its form."""

import re

import torch
from torch import Tensor

from rlhf_dagster.common.words import words
from rlhf_dagster.config.judging.reward import FormatReward, LengthReward
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.training.rewards.text_reward import TextReward


def length_reward(settings: LengthReward) -> TextReward:
    """0 within the limits, falling evenly to -1 where a response is `margin` beyond one of them."""

    def reward(prompts: list[Prompt], responses: list[str]) -> Tensor:
        lengths = [len(words(response) if settings.unit == "words" else response) for response in responses]
        beyond = torch.tensor([_beyond(length, settings) for length in lengths], dtype=torch.float32)
        return -(beyond / settings.margin).clamp(max=1.0)

    return reward


def _beyond(length: int, settings: LengthReward) -> int:
    """By how much a response is too long or too short."""
    too_long = 0 if settings.longest is None else length - settings.longest
    return max(0, too_long, settings.shortest - length)


def format_reward(settings: FormatReward) -> TextReward:
    """1 where a response has the form, else 0."""
    pattern = re.compile(settings.pattern, re.DOTALL)
    found = pattern.fullmatch if settings.matches == "whole" else pattern.search

    def reward(prompts: list[Prompt], responses: list[str]) -> Tensor:
        return torch.tensor([float(found(response) is not None) for response in responses])

    return reward
