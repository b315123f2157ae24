"""Embedded tasks: text, a gold judge and simulated annotators that need no network and no people."""

from rlhf_dagster.tasks.base import SPLITS, Judgment, SimulatedAnnotator, Split, Task
from rlhf_dagster.tasks.known import get_task

__all__ = ["SPLITS", "Judgment", "SimulatedAnnotator", "Split", "Task", "get_task"]
