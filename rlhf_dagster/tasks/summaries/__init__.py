"""Summaries of short posts and of longer articles: the two summarisation tasks of Ziegler et al. 2019 in the small."""

from rlhf_dagster.tasks.summaries.task import ARTICLES, SUMMARIES

__all__ = ["ARTICLES", "SUMMARIES"]
