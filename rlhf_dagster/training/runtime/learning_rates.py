"""The learning rate of each step."""

import math

from rlhf_dagster.config.schedule import ScheduleSettings


def rate_share(step: int, steps: int, schedule: ScheduleSettings) -> float:
    """The share of the learning rate that ``step`` of ``steps`` has, counted from 0; at ``steps`` itself, the last."""
    warmup = schedule.warmup_steps(steps)
    if step < warmup:
        return (step + 1) / warmup
    if schedule.shape == "constant":
        return 1.0
    done = (step - warmup) / (steps - warmup)
    left = 1 - done if schedule.shape == "linear" else (1 + math.cos(math.pi * done)) / 2
    return schedule.final + (1 - schedule.final) * left
