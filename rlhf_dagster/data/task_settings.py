"""The settings of a loop that learns a task: those that the task itself proposes for a tiny model."""

import re
from pathlib import Path
from typing import Any

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.base import HasSettings, Task
from rlhf_dagster.tasks.known import get_task

DEFAULT_TASK = "sentiment"
"""What `data.task` is where nobody has set it."""


def task_settings(name: str, folder: Path = Path()) -> dict[str, Any]:
    """What to write into `loop.yaml` for the task called ``name``: a name of the loop, and what differs from the
    defaults.

    Raises UserError where there is no such task, or where what it proposes are no settings.
    """
    task = get_task(name, folder)
    proposed = dict(task.settings) if isinstance(task, HasSettings) else {}
    its_data = {} if name == DEFAULT_TASK else {"data": {"task": name}}
    settings = overlaid(proposed, {"name": _loop_name(task), **its_data})
    LoopConfig.parse(settings, f"The settings of the task `{task.name}`")
    return settings


def _loop_name(task: Task) -> str:
    """The task's name as a loop can have it."""
    name = re.sub(r"[^a-z0-9_]+", "_", task.name.lower()).strip("_")
    if not re.match("[a-z]", name):
        raise UserError(f"The task's name is `{task.name}`; give it one that begins with a letter.")
    return name
