"""Physically descriptive continuation: the second stylistic task of Ziegler et al. 2019 in the small."""

from rlhf_dagster.tasks.descriptive.task import DESCRIPTIVE

__all__ = ["DESCRIPTIVE"]
