"""What a reward on text is."""

from collections.abc import Callable

from torch import Tensor

from rlhf_dagster.records.chats import Prompt

TextReward = Callable[[list[Prompt], list[str]], Tensor]
"""Scores [B], or [B, K], of prompts and their responses."""
