"""Tasks by name: the embedded ones, those of installed packages, and those that somebody has written beside a loop."""

from collections.abc import Callable, Iterable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from rlhf_dagster.common.functions import from_folder, load_object
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.tasks.base import Task

GROUP = "rlhf_dagster.tasks"
"""The group of entry points by which an installed package offers tasks."""
_MEMBERS = ("name", "prompts", "demonstrations", "pretraining_text", "gold_score", "annotators")


def get_task(name: str, folder: Path = Path()) -> Task:
    """The :class:`Task` called ``name``: an embedded one, one of an installed package (entry points of the group
    ``rlhf_dagster.tasks``), or the one that `file.py:NAME` or `module:NAME` refers to.

    The path of a file is relative to ``folder``. Raises UserError where there is no such task, or more than one.
    """
    offered = _offered(name)
    if name in EMBEDDED_TASKS and not offered:
        return EMBEDDED_TASKS[name]()
    if offered:
        return _of_package(name, offered)
    if ":" not in name:
        raise UserError(
            f"There is no task called `{name}`; choose one of: {', '.join(known_tasks())}; or give one of yours as "
            "file.py:NAME."
        )
    return _own(from_folder(name, folder.absolute()))


def known_tasks() -> list[str]:
    """The names of the embedded tasks and of those that installed packages offer, sorted."""
    return sorted(EMBEDDED_TASKS.keys() | {entry.name for entry in _plug_ins()})


@cache
def _plug_ins() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))


def _offered(name: str) -> list[EntryPoint]:
    return [entry for entry in _plug_ins() if entry.name == name]


def _of_package(name: str, offered: Iterable[EntryPoint]) -> Task:
    entry, *others = offered
    sources = [*(["rlhf_dagster itself"] if name in EMBEDDED_TASKS else []), *map(_package, (entry, *others))]
    if len(sources) > 1:
        raise UserError(
            f"{len(sources)} tasks are called `{name}`: of {' and of '.join(sources)}; name the one you mean as "
            f"module:NAME, such as {entry.value}."
        )
    try:
        task = entry.load()
    except Exception as error:  # somebody else's code
        raise UserError(
            f"The task `{name}` of {sources[0]} cannot be imported ({type(error).__name__}: {first_line(error)}); "
            "mend or remove that package."
        ) from None
    return _checked(task, f"The task `{name}` of {sources[0]}")


def _package(entry: EntryPoint) -> str:
    return f"the package {entry.dist.name}" if entry.dist else f"a package with {entry.value}"


@cache
def _own(name: str) -> Task:
    return _checked(load_object(name, "data.task", "give it as file.py:NAME or module:NAME"), f"data.task {name!r}")


def _checked(task: Task, what: str) -> Task:
    lacking = [member for member in _MEMBERS if not hasattr(task, member)]
    if lacking:
        raise UserError(
            f"{what} is no task, it has no `{lacking[0]}`; give an object with all members of rlhf_dagster.tasks.Task."
        )
    return task


def _sentiment() -> Task:
    from rlhf_dagster.tasks.sentiment import TASK

    return TASK


def _descriptive() -> Task:
    from rlhf_dagster.tasks.descriptive import DESCRIPTIVE

    return DESCRIPTIVE


def _helpful() -> Task:
    from rlhf_dagster.tasks.helpful import HELPFUL

    return HELPFUL


def _summaries() -> Task:
    from rlhf_dagster.tasks.summaries import SUMMARIES

    return SUMMARIES


def _summaries_articles() -> Task:
    from rlhf_dagster.tasks.summaries import ARTICLES

    return ARTICLES


EMBEDDED_TASKS: dict[str, Callable[[], Task]] = {
    "sentiment": _sentiment,
    "descriptive": _descriptive,
    "helpful": _helpful,
    "summaries": _summaries,
    "summaries_articles": _summaries_articles,
}
"""What imports each embedded task."""
