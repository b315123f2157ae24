"""The embedded tasks, by name."""

from collections.abc import Callable

from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.base import Task


def get_task(name: str) -> Task:
    """The embedded task called ``name``; raises UserError where there is none."""
    if name not in KNOWN_TASKS:
        raise UserError(f"There is no task called `{name}`; choose one of: {', '.join(sorted(KNOWN_TASKS))}.")
    return KNOWN_TASKS[name]()


def _sentiment() -> Task:
    from rlhf_dagster.tasks.sentiment import TASK

    return TASK


KNOWN_TASKS: dict[str, Callable[[], Task]] = {"sentiment": _sentiment}
"""What imports each task."""
