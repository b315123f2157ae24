"""Helpful, honest and harmless answers in chats: the tasks of InstructGPT and of Bai et al. 2022 in the small."""

from rlhf_dagster.tasks.helpful.task import HELPFUL

__all__ = ["HELPFUL"]
