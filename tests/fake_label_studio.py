"""A Label Studio in memory, for events that a real one takes long to bring about, or cannot be made to.

It answers the requests that the label store makes as version 1.23.2 does; tests/labeling/label_studio compares the two.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fake_server import Answer, Asked, FakeServer, serving

STEP = timedelta(minutes=5)
"""What the server's clock moves on with every change."""


@dataclass
class FakeDatabase:
    """What a server holds; a copy of it is a backup."""

    made: str
    now: datetime
    projects: dict[int, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[int, dict[str, Any]] = field(default_factory=dict)
    numbers: dict[str, int] = field(default_factory=dict)
    """The last id given out in each table."""

    def next(self, table: str) -> int:
        self.numbers[table] = self.numbers.get(table, 0) + 1
        return self.numbers[table]

    def tick(self) -> str:
        self.now += STEP
        return self.now.isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class FakeLabelStudio:
    """The server; ``trouble`` may answer in its place."""

    database: FakeDatabase
    trouble: Callable[[Asked], Answer | None] = lambda _: None
    poisoned: set[int] = field(default_factory=set)
    """Numbers of annotations that make every listing of their task fail."""
    server: FakeServer | None = None

    @classmethod
    def new(cls) -> "FakeLabelStudio":
        return cls(new_database())

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    def backup(self) -> FakeDatabase:
        return copy.deepcopy(self.database)

    def restore(self, backup: FakeDatabase) -> None:
        """Put a backup back; time goes on."""
        now = self.database.now
        self.database = copy.deepcopy(backup)
        self.database.now = now

    def reset(self) -> None:
        """An empty database in its place."""
        now = self.database.now
        self.database = new_database()
        self.database.now = max(now, self.database.now)
        self.database.made = self.database.tick()

    def task_of(self, comparison: str) -> dict[str, Any]:
        """The first task of a comparison."""
        return next(task for task in self.database.tasks.values() if task["data"]["comparison"] == comparison)

    def annotate(self, task: int, result: Any, by: int = 1, lead_time: Any = 1.0, skipped: bool = False) -> int:
        at = self.database.tick()
        made = {"id": self.database.next("annotation"), "result": result, "completed_by": by, "lead_time": lead_time}
        made |= {"was_cancelled": skipped, "created_at": at, "updated_at": at, "task": task}
        self.database.tasks[task]["annotations"].append(made)
        self._touch(task)
        return int(made["id"])

    def annotations(self) -> list[dict[str, Any]]:
        return [found for task in self.database.tasks.values() for found in task["annotations"]]

    def edit(self, annotation: int, **fields: Any) -> None:
        found = next(found for found in self.annotations() if found["id"] == annotation)
        found.update(fields, updated_at=self.database.tick())
        self._touch(found["task"])

    def delete_annotation(self, annotation: int) -> None:
        found = next(found for found in self.annotations() if found["id"] == annotation)
        self.database.tasks[found["task"]]["annotations"].remove(found)
        self._touch(found["task"])

    def delete_task(self, task: int) -> None:
        del self.database.tasks[task]

    def delete_project(self, project: int) -> None:
        del self.database.projects[project]
        for task in [found["id"] for found in self.database.tasks.values() if found["project"] == project]:
            self.delete_task(task)

    def _touch(self, task: int) -> None:
        self.database.tasks[task]["updated_at"] = self.database.tick()

    def answer(self, asked: Asked) -> Answer:
        trouble = self.trouble(asked)
        if trouble is not None:
            return trouble
        parts = urlsplit(asked.path)
        params = {name: values[0] for name, values in parse_qs(parts.query).items()}
        body = json.loads(asked.body) if asked.body else None
        for method, pattern, handle in _ROUTES:
            found = re.fullmatch(pattern, parts.path.strip("/"))
            if method == asked.method and found:
                return handle(self, params, body, *map(int, found.groups()))
        return 404, {"detail": "Not found."}


def new_database() -> FakeDatabase:
    database = FakeDatabase("", datetime(2026, 1, 1, tzinfo=UTC))
    database.made = database.tick()
    return database


@contextmanager
def label_studio_in_memory() -> Iterator[FakeLabelStudio]:
    fake = FakeLabelStudio.new()
    with serving(fake.answer) as server:
        fake.server = server
        yield fake


Params = dict[str, str]


def _organizations(fake: FakeLabelStudio, *_: Any) -> Answer:
    return 200, [{"id": 1, "title": "Label Studio", "created_at": fake.database.made}]


def _users(*_: Any) -> Answer:
    return 200, [{"id": number, "email": f"person-{number}@example.com"} for number in range(1, 6)]


def _projects(fake: FakeLabelStudio, params: Params, *_: Any) -> Answer:
    found = [made for made in fake.database.projects.values() if params.get("title", "") in made["title"]]
    return 200, {"results": found}


def _make_project(fake: FakeLabelStudio, _: Params, body: Any) -> Answer:
    made = body | {"id": fake.database.next("project"), "created_at": fake.database.tick()}
    fake.database.projects[made["id"]] = made
    return 201, made


def _project(fake: FakeLabelStudio, _: Params, __: Any, project: int) -> Answer:
    found = fake.database.projects.get(project)
    return (404, {"detail": "Not found."}) if found is None else (200, found)


def _import(fake: FakeLabelStudio, _: Params, body: Any, project: int) -> Answer:
    if project not in fake.database.projects:
        return 404, {"detail": "Not found."}
    ids = []
    for entry in body:
        task = {"id": fake.database.next("task"), "project": project, "data": entry["data"], "annotations": []}
        fake.database.tasks[task["id"]] = task | {"updated_at": fake.database.tick(), "overlap": 1}
        ids.append(task["id"])
    return 201, {"task_ids": ids}


def _list(fake: FakeLabelStudio, params: Params, *_: Any) -> Answer:
    project, query = int(params["project"]), json.loads(params["query"])
    if project not in fake.database.projects:
        return 404, {"detail": "Not found."}
    tasks = [task for task in fake.database.tasks.values() if task["project"] == project]
    for item in query.get("filters", {}).get("items", []):
        tasks = [task for task in tasks if _matches(task, item)]
    newest = query["ordering"] == ["-tasks:updated_at"]
    tasks.sort(key=lambda task: task["updated_at"] if newest else task["id"], reverse=newest)
    shown, total = tasks[: int(params["page_size"])], len(tasks)
    full = ",annotations," in params["include"]
    if full and any(found["id"] in fake.poisoned for task in shown for found in task["annotations"]):
        return 500, "<!doctype html>"
    return 200, {"total": total, "total_annotations": 0, "tasks": [_shown(task, full) for task in shown]}


def _shown(task: dict[str, Any], full: bool) -> dict[str, Any]:
    skipped = sum(found["was_cancelled"] for found in task["annotations"])
    counts = {"total_annotations": len(task["annotations"]) - skipped, "cancelled_annotations": skipped}
    shown = {name: task[name] for name in ("id", "updated_at", "data")} | counts
    return shown | ({"annotations": task["annotations"]} if full else {})


def _matches(task: dict[str, Any], item: dict[str, Any]) -> bool:
    value = task[item["filter"].removeprefix("filter:tasks:")]
    compare = {"greater": value.__gt__, "less": value.__lt__, "greater_or_equal": value.__ge__}[item["operator"]]
    return bool(compare(item["value"]))


def _task(fake: FakeLabelStudio, _: Params, __: Any, task: int) -> Answer:
    found = fake.database.tasks.get(task)
    return (404, {"detail": "Not found."}) if found is None else (200, found | {"drafts": []})


def _patch_task(fake: FakeLabelStudio, _: Params, body: Any, task: int) -> Answer:
    fake.database.tasks[task].update(body)
    return 200, fake.database.tasks[task]


def _action(fake: FakeLabelStudio, _: Params, body: Any) -> Answer:
    for task in body["selectedItems"]["included"]:
        fake.delete_task(task)
    return 200, {"detail": "done"}


_ROUTES: list[tuple[str, str, Callable[..., Answer]]] = [
    ("GET", "api/version", lambda *_: (200, {"release": "1.23.2"})),
    ("GET", "api/organizations", _organizations),
    ("GET", "api/users", _users),
    ("GET", "api/projects", _projects),
    ("POST", "api/projects", _make_project),
    ("GET", r"api/projects/(\d+)", _project),
    ("POST", r"api/projects/(\d+)/import", _import),
    ("GET", "api/tasks", _list),
    ("GET", r"api/tasks/(\d+)", _task),
    ("PATCH", r"api/tasks/(\d+)", _patch_task),
    ("POST", "api/dm/actions", _action),
]
