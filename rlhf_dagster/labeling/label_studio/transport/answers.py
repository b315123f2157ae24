"""What an answer has to look like before anything in it is believed; the one place that looks.

A server that was upgraded, or something else at its address, answers with status 200 too. Each function returns what it
was given, or raises :class:`WrongShape` with what is wrong about it.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

LARGEST_ID = 2**63 - 1
"""What a database can hold."""


class WrongShape(ValueError):  # noqa: N818  # what it is called, not what went wrong
    """An answer is not what was asked for; the message says how, without a full stop."""


class NoJson(WrongShape):
    """An answer is no JSON at all."""


@dataclass(frozen=True)
class TaskPage:
    """Some tasks of a project, and how many there are in all that match the question."""

    total: int
    tasks: list[dict[str, Any]]


def parsed(content: bytes) -> Any:
    """JSON, read strictly."""
    try:
        return json.loads(content, parse_constant=_no_number)
    except WrongShape:
        raise
    except (ValueError, RecursionError):
        raise NoJson("it is no JSON that can be read") from None


def object_of(value: Any, *names: str, what: str = "the answer") -> dict[str, Any]:
    """An object that has all of ``names``."""
    if not isinstance(value, dict):
        raise WrongShape(f"{what} is {_kind(value)} in place of an object")
    for name in names:
        if name not in value:
            raise WrongShape(f"{what} has no `{name}`")
    return value


def list_of(check: Callable[[Any], Any], value: Any, what: str) -> list[Any]:
    """A list of which every entry passes ``check``."""
    if not isinstance(value, list):
        raise WrongShape(f"{what} is {_kind(value)} in place of a list")
    return [check(entry) for entry in value]


def identity(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= LARGEST_ID:
        raise WrongShape(f"{what} is {_shown(value)}, which is no id")
    return value


def count_of(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= LARGEST_ID:
        raise WrongShape(f"{what} is {_shown(value)}, which is no count")
    return value


def text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise WrongShape(f"{what} is {_kind(value)} in place of a text")
    return value


def time(value: Any, what: str) -> str:
    """A time with its time zone (ISO 8601), as the text that it is."""
    try:
        known = datetime.fromisoformat(text(value, what)).tzinfo is not None
    except ValueError:
        known = False
    if not known:
        raise WrongShape(f"{what} is {_shown(value)}, which is no time with a time zone")
    return str(value)


def user(value: Any) -> dict[str, Any]:
    found = object_of(value, "id", "email", what="a user")
    identity(found["id"], "the id of a user")
    text(found["email"], "the e-mail address of a user")
    return found


def organizations(value: Any) -> list[dict[str, Any]]:
    def organization(entry: Any) -> dict[str, Any]:
        found = object_of(entry, "id", "created_at", what="an organization")
        identity(found["id"], "the id of an organization")
        time(found["created_at"], "`created_at` of an organization")
        return found

    found = list_of(organization, value, "the list of organizations")
    if not found:
        raise WrongShape("it names no organization, where every account belongs to one")
    return found


def invitation(value: Any) -> str:
    """The path at which new members sign up."""
    return text(object_of(value, "invite_url")["invite_url"], "`invite_url`")


def projects(value: Any) -> list[dict[str, Any]]:
    return list_of(project, object_of(value, "results", what="the list of projects")["results"], "the list of projects")


def made(value: Any, wanted: int) -> list[int]:
    """Ids of the ``wanted`` tasks that an import has made, in the order in which they were sent."""
    found = object_of(value, "task_ids", what="the answer to an import")["task_ids"]
    ids = list_of(lambda entry: identity(entry, "the id of a task"), found, "`task_ids`")
    if len(ids) != wanted or len(set(ids)) != wanted:
        raise WrongShape(f"it names {len(ids):,} tasks where {wanted:,} were sent")
    return ids


def project(value: Any) -> dict[str, Any]:
    """A project with its id, its title, its description (a text), and when it was made."""
    found = object_of(value, "id", "title", "created_at", what="a project")
    identity(found["id"], "the id of a project")
    text(found["title"], "the title of a project")
    time(found["created_at"], "`created_at` of a project")
    return found | {"description": text(found.get("description") or "", "the description of a project")}


def annotation(value: Any) -> dict[str, Any]:
    names = ("id", "result", "completed_by", "was_cancelled", "lead_time", "created_at", "updated_at")
    found = object_of(value, *names, what="an annotation")
    identity(found["id"], "the id of an annotation")
    for name in ("completed_by", "updated_by"):
        if found.get(name) is not None:
            identity(found[name], f"`{name}` of an annotation")
    if not isinstance(found["was_cancelled"], bool):
        raise WrongShape(f"`was_cancelled` of an annotation is {_shown(found['was_cancelled'])}")
    for name in ("created_at", "updated_at"):
        time(found[name], f"`{name}` of an annotation")
    return found


def task(value: Any, full: bool) -> dict[str, Any]:
    """A task, with its annotations if ``full``."""
    names = ("id", "updated_at", "data", "total_annotations", "cancelled_annotations")
    found = object_of(value, *names, *(("annotations",) if full else ()), what="a task")
    identity(found["id"], "the id of a task")
    time(found["updated_at"], "`updated_at` of a task")
    for name in ("total_annotations", "cancelled_annotations"):
        count_of(found[name], f"`{name}` of a task")
    if full:
        list_of(annotation, found["annotations"], "`annotations` of a task")
    return found


def one_task(value: Any) -> dict[str, Any]:
    """A task with the annotations made of it and those begun."""
    found = object_of(value, "annotations", "drafts", what="a task")
    for name in ("annotations", "drafts"):
        list_of(object_of, found[name], f"`{name}` of a task")
    return found


def task_state(value: Any) -> dict[str, Any]:
    """A task of which only the id and the time of its last change were asked."""
    found = object_of(value, "id", "updated_at", what="a task")
    identity(found["id"], "the id of a task")
    time(found["updated_at"], "`updated_at` of a task")
    return found


def page(value: Any, check: Callable[[Any], dict[str, Any]], size: int) -> TaskPage:
    """A page of at most ``size`` tasks."""
    found = object_of(value, "total", "tasks", what="a page of tasks")
    tasks = list_of(check, found["tasks"], "`tasks`")
    if len(tasks) > size:
        raise WrongShape(f"{len(tasks):,} tasks came where {size:,} were asked for")
    return TaskPage(count_of(found["total"], "`total` of a page of tasks"), tasks)


def in_order(tasks: Sequence[dict[str, Any]], after: int, below: int | None, since: datetime | None) -> None:
    """The tasks asked for and no others: by ascending id between two ids, changed at ``since`` or later."""
    for found in tasks:
        if found["id"] <= after or (below is not None and found["id"] >= below):
            raise WrongShape(f"task {found['id']} is not one that was asked for")
        if since is not None and "updated_at" in found and datetime.fromisoformat(found["updated_at"]) < since:
            raise WrongShape(f"task {found['id']} was not changed since the time asked for")
        after = found["id"]


def _no_number(name: str) -> Any:
    raise WrongShape(f"{name} is no number")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
    return names.get(type(value), "a number")


def _shown(value: Any) -> str:
    return repr(value)[:40] if not isinstance(value, int) or abs(value) <= LARGEST_ID else "a huge number"
