"""Embedded tasks: text, a gold judge and simulated annotators that need no network and no people."""

from rlhf_dagster.tasks.base import (
    SPLITS,
    HasAnnotatorKinds,
    HasAxes,
    HasFacts,
    HasReferences,
    HasSettings,
    HasSource,
    Judgment,
    SimulatedAnnotator,
    Split,
    Task,
    Truthfulness,
)
from rlhf_dagster.tasks.known import get_task

__all__ = [
    "SPLITS",
    "HasAnnotatorKinds",
    "HasAxes",
    "HasFacts",
    "HasReferences",
    "HasSettings",
    "HasSource",
    "Judgment",
    "SimulatedAnnotator",
    "Split",
    "Task",
    "Truthfulness",
    "get_task",
]
