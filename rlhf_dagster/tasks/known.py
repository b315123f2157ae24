"""Tasks by name: the embedded ones, and those that somebody has written."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from rlhf_dagster.common.functions import from_folder, load_object
from rlhf_dagster.errors import UserError
from rlhf_dagster.tasks.base import Task

_MEMBERS = ("name", "prompts", "demonstrations", "pretraining_text", "gold_score", "annotators")


def get_task(name: str, folder: Path = Path()) -> Task:
    """The embedded task called ``name``, or the :class:`Task` that `file.py:NAME` or `module:NAME` refers to.

    The path of a file is relative to ``folder``. Raises UserError where there is no such task.
    """
    if name in KNOWN_TASKS:
        return KNOWN_TASKS[name]()
    if ":" not in name:
        known = ", ".join(sorted(KNOWN_TASKS))
        raise UserError(
            f"There is no task called `{name}`; choose one of: {known}; or give one of yours as file.py:NAME."
        )
    return _own(from_folder(name, folder.absolute()))


@cache
def _own(name: str) -> Task:
    task: Task = load_object(name, "data.task", "give it as file.py:NAME or module:NAME")
    lacking = [member for member in _MEMBERS if not hasattr(task, member)]
    if lacking:
        raise UserError(
            f"data.task {name!r} is no task, it has no `{lacking[0]}`; give an object with all members of "
            "rlhf_dagster.tasks.Task."
        )
    return task


def _sentiment() -> Task:
    from rlhf_dagster.tasks.sentiment import TASK

    return TASK


KNOWN_TASKS: dict[str, Callable[[], Task]] = {"sentiment": _sentiment}
"""What imports each task."""
