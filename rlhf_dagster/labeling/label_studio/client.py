"""The few requests that a label store makes of Label Studio, on label-studio-sdk.

Bodies are sent and read as plain JSON: the SDK turns each task into a model, which costs more than the server's own
work.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rlhf_dagster.labeling.label_studio.transport import answers
from rlhf_dagster.labeling.label_studio.transport.answers import TaskPage, WrongShape
from rlhf_dagster.labeling.label_studio.transport.errors import (
    LabelStudioError,
    LabelStudioGone,
    no_label_studio,
    nonsense,
)
from rlhf_dagster.labeling.label_studio.transport.requests import Requests

OLDEST, TOO_NEW = (1, 21), (2, 0)
PAGE_SIZE = 1000
"""Tasks read at once; larger pages gain nothing."""
TASK_FIELDS = "id,updated_at,data,total_annotations,cancelled_annotations"
ANNOTATION_FIELDS = "annotations,result,completed_by,updated_by,was_cancelled,lead_time,created_at"
"""The server prunes nested annotations by the same list, which makes reading twice as fast."""


class LabelStudioClient(Requests):
    """A Label Studio server, as the owner of ``token`` (a personal access token or a legacy one) sees it.

    Every request has a timeout and none is repeated, because a server that gave no answer may still do what was asked.
    What an answer says is believed only where all of it has the shape that was asked for. Each failure is a
    :class:`~rlhf_dagster.labeling.label_studio.transport.errors.LabelStudioError` with one sentence.
    """

    def check(self) -> str:
        """The server's version; raises LabelStudioError if there is no server, or if it is not supported."""
        body = self._json("GET", "api/version")
        version = str(body.get("release", "")) if isinstance(body, dict) else ""
        numbers = version.split(".")
        if len(numbers) < 2 or not all(part.isdigit() for part in numbers[:2]):
            raise no_label_studio(self.url)
        if not OLDEST <= (int(numbers[0]), int(numbers[1])) < TOO_NEW:
            raise LabelStudioError(
                f"Label Studio at {self.url} is version {version}; versions from {_dotted(OLDEST)} to below "
                f"{_dotted(TOO_NEW)} are supported."
            )
        return version

    def me(self) -> dict[str, Any]:
        return self._read("GET", "api/current-user/whoami", answers.user)

    def users(self) -> list[dict[str, Any]]:
        """Members with ``id`` and ``email``."""
        return self._read("GET", "api/users/", lambda body: answers.list_of(answers.user, body, "the list of members"))

    def organizations(self) -> list[dict[str, Any]]:
        """The organizations that the token's owner belongs to, with ``id`` and ``created_at``: one in most servers."""
        return self._read("GET", "api/organizations/", answers.organizations)

    def invite_url(self) -> str:
        """The address at which new members sign up: whoever has it can join."""
        return self.url + self._read("GET", "api/invite", answers.invitation)

    def projects(self, title: str) -> list[dict[str, Any]]:
        """Projects whose title contains ``title``, with id, title, description and ``created_at``."""
        params = {"title": title, "page_size": PAGE_SIZE, "include": "id,title,description,created_at"}
        return self._read("GET", "api/projects/", answers.projects, params)

    def project(self, project: int) -> dict[str, Any]:
        """A project with id, title, description, ``created_at`` and ``label_config``."""
        return self._read("GET", f"api/projects/{project}/", answers.project)

    def create_project(
        self, title: str, label_config: str, instructions: str, labels_wanted: int, description: str
    ) -> int:
        """A new project's id. Its queue goes through the tasks in the order sent."""
        body = {
            "title": title,
            "description": description,
            "label_config": label_config,
            "expert_instruction": instructions,
            "show_instruction": True,
            "show_skip_button": True,
            # Submit stays enabled, and what must be answered is `required` in the config: with False, a page that has
            # only a text area cannot be submitted.
            "enable_empty_annotation": True,
            "maximum_annotations": labels_wanted,
            "sampling": "Sequential sampling",
            "show_collab_predictions": False,
            "skip_queue": "REQUEUE_FOR_OTHERS",
        }
        return int(self._read("POST", "api/projects/", answers.project, body=body)["id"])

    def project_config(self, project: int) -> str:
        """The labelling config that annotators see."""
        return str(self.project(project).get("label_config"))

    def delete_project(self, project: int) -> None:
        self._request("DELETE", f"api/projects/{project}/")

    def import_tasks(self, project: int, tasks: Sequence[Mapping[str, Any]]) -> list[int]:
        """Create tasks (``{"data": ...}`` each), all or none; their ids in order.

        After a timeout or a lost connection nobody knows whether they were created: list the tasks before trying again.
        """
        path = f"api/projects/{project}/import"
        made = lambda body: answers.made(body, len(tasks))  # noqa: E731
        return self._read("POST", path, made, {"return_task_ids": "true"}, body=list(tasks))

    def delete_tasks(self, project: int, tasks: Sequence[int]) -> None:
        body = {"selectedItems": {"all": False, "included": list(tasks)}}
        self._request("POST", "api/dm/actions", {"id": "delete_tasks", "project": project}, body=body)

    def set_overlap(self, task: int, annotators: int) -> None:
        """How many annotators a task is shown to."""
        self._request("PATCH", f"api/tasks/{task}/", body={"overlap": annotators})

    def is_untouched(self, task: int) -> bool:
        """Whether nobody has annotated a task or begun to."""
        found = self._read("GET", f"api/tasks/{task}/", answers.one_task)
        return not (found["annotations"] or found["drafts"])

    def probe(self, project: int) -> tuple[int, str | None]:
        """How many tasks a project has, and when the newest change of one was (ISO 8601)."""
        query = {"ordering": ["-tasks:updated_at"]}
        page = self._page(project, query, 1, "id,updated_at", answers.task_state)
        return page.total, page.tasks[0]["updated_at"] if page.tasks else None

    def task_page(
        self,
        project: int,
        after_id: int = 0,
        updated_since: datetime | None = None,
        full: bool = True,
        page_size: int = PAGE_SIZE,
        below_id: int | None = None,
    ) -> list[dict[str, Any]]:
        """The next tasks by id, at most ``page_size``, with ``data``; with their annotations if ``full``.

        Paging by id keeps its place while tasks come and go. ``updated_since`` is compared with the server's clock.
        """
        include = f"{TASK_FIELDS},{ANNOTATION_FIELDS}" if full else TASK_FIELDS
        between = (after_id, below_id, updated_since)
        return self._tasks(project, between, page_size, include, lambda task: answers.task(task, full))

    def task_ids(
        self,
        project: int,
        after_id: int = 0,
        updated_since: datetime | None = None,
        page_size: int = PAGE_SIZE,
        below_id: int | None = None,
    ) -> list[int]:
        """Ids of the tasks that :meth:`task_page` would read; works for tasks that the server cannot show."""
        between = (after_id, below_id, updated_since)
        tasks = self._tasks(project, between, page_size, "id,updated_at", answers.task_state)
        return [task["id"] for task in tasks]

    def annotate(
        self, task: int, result: Sequence[Mapping[str, Any]], lead_time: float | None, was_cancelled: bool = False
    ) -> dict[str, Any]:
        """Submit an annotation as the token's owner."""
        body = {"result": list(result), "lead_time": lead_time, "was_cancelled": was_cancelled, "ground_truth": False}
        return self._read("POST", f"api/tasks/{task}/annotations/", answers.annotation, body=body)

    def update_annotation(self, annotation: int, **fields: Any) -> dict[str, Any]:
        return self._read("PATCH", f"api/annotations/{annotation}/", answers.annotation, body=fields)

    def delete_annotation(self, annotation: int) -> None:
        self._request("DELETE", f"api/annotations/{annotation}/")

    def _tasks(
        self,
        project: int,
        between: tuple[int, int | None, datetime | None],
        page_size: int,
        include: str,
        check: Callable[[Any], dict[str, Any]],
    ) -> list[dict[str, Any]]:
        """Tasks between two ids that were changed since a time: as many as the server says there are, or none at all.

        A listing that is shorter than its total is asked for once more, because a task may have been deleted between
        the server's counting and its listing.
        """
        query = {"filters": {"conjunction": "and", "items": _filters(*between)}, "ordering": ["tasks:id"]}
        for _ in range(2):
            page = self._page(project, query, page_size, include, check)
            if len(page.tasks) >= min(page_size, page.total):
                break
        else:
            short = f"it lists {len(page.tasks):,} tasks where it counts {page.total:,}"
            raise nonsense(self.url, "GET api/tasks/", WrongShape(short))
        self._believe("GET api/tasks/", lambda _: answers.in_order(page.tasks, *between), None)
        return page.tasks

    def _page(
        self,
        project: int,
        query: Mapping[str, Any],
        page_size: int,
        include: str,
        check: Callable[[Any], dict[str, Any]],
    ) -> TaskPage:
        params = {
            "project": project,
            "page": 1,
            "page_size": page_size,
            "fields": "all" if ",annotations," in include else "task_only",
            "include": include,
            "query": json.dumps(query),
        }
        try:
            return self._read("GET", "api/tasks/", lambda body: answers.page(body, check, page_size), params)
        except LabelStudioGone:
            raise LabelStudioGone(
                f"Label Studio at {self.url} has no project {project} (any more); was it deleted there?"
            ) from None


def _filters(after_id: int, below_id: int | None, updated_since: datetime | None) -> list[dict[str, Any]]:
    items = [_filter("id", "greater", "Number", after_id)]
    if below_id is not None:
        items.append(_filter("id", "less", "Number", below_id))
    if updated_since is not None:
        # Without microseconds the server fails with status 500.
        since = updated_since.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        items.append(_filter("updated_at", "greater_or_equal", "Datetime", since))
    return items


def _filter(column: str, operator: str, kind: str, value: Any) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
