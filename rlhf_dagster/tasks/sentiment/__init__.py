"""Sentiment continuation: the stylistic task of Ziegler et al. 2019 at a size for two CPU cores."""

from rlhf_dagster.tasks.sentiment.gold import gold_score
from rlhf_dagster.tasks.sentiment.task import TASK, sample_prompts

__all__ = ["TASK", "gold_score", "sample_prompts"]
