"""Everything that happened to a project's annotations since we last looked, as versions in the ledger."""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.people import UNKNOWN, People
from rlhf_dagster.labeling.label_studio.state import KnownAnnotation, Project, SentTask, SyncState, moment
from rlhf_dagster.labeling.store import Annotation

OVERLAP = timedelta(seconds=60)
"""Reading begins this long before the newest change: an earlier change may be committed after a later one."""


class Synchroniser:
    """Reads one server into the ledger. The caller holds the loop's lock: one reader at a time."""

    def __init__(self, client: LabelStudioClient, state: SyncState, ledger: EmbeddedLabelStore, people: People) -> None:
        self.client, self.state, self.ledger, self.people = client, state, ledger, people

    def read_changes(self, project: Project) -> None:
        """Read what has changed. Where nothing has, this is one small request."""
        total, newest = self.client.probe(project.project)
        if project.unsure or total != project.listed:
            self.sweep(project)
        elif newest is not None and (newest != project.newest or _is_due(project)):
            self._read_since(project, moment(project.newest) - OVERLAP if project.newest else None)

    def sweep(self, project: Project) -> None:
        """Compare all tasks with the server's: find new, deleted and changed ones, and delete unlabelled duplicates."""
        began, known = time.time(), self.state.tasks(project.project)
        never_read = project.newest is None
        listed: dict[int, dict[str, Any]] = {}
        for page in self._pages(project, full=never_read):
            listed |= {task["id"]: task for task in page}
            if never_read:
                self._adopt(project, page, known)
                self._take_in(project, page)
        found = self._adopt(project, listed.values(), known)
        surplus = [identity for identity in _surplus(found.values()) if self.client.is_untouched(identity)]
        if surplus:
            self.client.delete_tasks(project.project, surplus)
        gone = (known.keys() - found.keys()) | set(surplus)
        self._delete([annotation for annotation in self.state.annotations(gone) if not annotation.gone])
        self.state.set_tasks_gone(gone)
        self.state.set_listed(project.project, len(listed) - len(surplus))
        changed = [moment(task["updated_at"]) for key, task in found.items() if _is_unread(task, known.get(key))]
        if changed and not never_read:
            self._read_since(project, min(changed))
        elif found:
            self.state.set_read(project, max((task["updated_at"] for task in found.values()), key=moment), began)

    def _adopt(
        self, project: Project, tasks: Iterable[dict[str, Any]], known: Mapping[int, SentTask]
    ) -> dict[int, dict[str, Any]]:
        """Record the tasks that are ours and return them by id, without tasks made by hand in the project."""
        tasks = list(tasks)
        sent = self.ledger.comparisons_by_id({_comparison(task) for task in tasks} - {""})
        ours = {task["id"]: task for task in tasks if _comparison(task) in sent}
        new = {identity: _comparison(task) for identity, task in ours.items() if identity not in known}
        self.state.add_tasks(project.project, new, project.labels_wanted)
        return ours

    def _read_since(self, project: Project, since: datetime | None) -> None:
        began, newest = time.time(), project.newest
        for page in self._pages(project, full=True, since=since):
            self._take_in(project, page)
            newest = max([task["updated_at"] for task in page] + ([newest] if newest else []), key=moment)
        self.state.set_read(project, newest, began)

    def _take_in(self, project: Project, page: list[dict[str, Any]]) -> None:
        """Record the annotations of some tasks; those on record that the server no longer has were deleted."""
        known = self.state.tasks(project.project)
        tasks = {
            task["id"]: task
            for task in page
            if task["id"] in known and known[task["id"]].updated_at != task["updated_at"]
        }
        there = {annotation["id"] for task in tasks.values() for annotation in task["annotations"]}
        before = [annotation for annotation in self.state.annotations(tasks) if not annotation.gone]
        self._delete([annotation for annotation in before if annotation.annotation not in there])
        found = [
            (annotation, task["id"], known[task["id"]].comparison_id)
            for task in tasks.values()
            for annotation in task["annotations"]
        ]
        names = self._names({annotation["completed_by"] for annotation, _, _ in found})
        ids = self.state.identify(
            (annotation["id"], task, comparison, names[annotation["completed_by"]])
            for annotation, task, comparison in found
        )
        self.ledger.append(
            as_version(annotation, ids[annotation["id"]], comparison, names[annotation["completed_by"]])
            for annotation, _, comparison in found
        )
        # Last, so that a task whose annotations were not recorded is read again.
        self.state.set_updated({identity: task["updated_at"] for identity, task in tasks.items()})

    def _delete(self, annotations: list[KnownAnnotation]) -> None:
        newest = self.ledger.newest([annotation.annotation_id for annotation in annotations])
        at = datetime.now(UTC)
        self.ledger.append(
            Annotation(
                annotation_id=annotation.annotation_id,
                comparison_id=annotation.comparison_id,
                annotator=newest[annotation.annotation_id].annotator,
                version=0,
                status="deleted",
                result={},
                seconds=None,
                created_at=at,
                updated_at=at,
            )
            for annotation in annotations
            if annotation.annotation_id in newest
        )
        self.state.set_annotations_gone(annotation.annotation for annotation in annotations)

    def _names(self, users: set[int | None]) -> dict[int | None, str]:
        """Pseudonyms by user id."""
        names = self.state.names()
        unknown = {user for user in users if user is not None} - names.keys()
        if unknown:
            emails = {user["id"]: user["email"] for user in self.client.users()}
            # Somebody who is no member any more is known by number alone.
            new = self.people.names({user: emails.get(user, f"user-{user}@gone.invalid") for user in unknown})
            self.state.add_names(new)
            names |= new
        return {None: UNKNOWN} | names

    def _pages(self, project: Project, full: bool, since: datetime | None = None) -> Iterable[list[dict[str, Any]]]:
        after = 0
        while page := self.client.task_page(project.project, after, updated_since=since, full=full):
            after = page[-1]["id"]
            yield page


def _is_due(project: Project) -> bool:
    """Whether changes shortly before the newest one must be read once more: some may have been committed late.

    That is due once, ``OVERLAP`` after the newest change was first read. A sweep finds late changes too, so reading for
    training does not have to wait for this.
    """
    settled = project.newest_seen + OVERLAP.total_seconds()
    return project.last_read < settled <= time.time()


def as_version(annotation: Mapping[str, Any], identity: str, comparison: str, annotator: str) -> Annotation:
    """An annotation as the server holds it, for the ledger; the result stays as it is."""
    skipped = bool(annotation["was_cancelled"])
    return Annotation(
        annotation_id=identity,
        comparison_id=comparison,
        annotator=annotator,
        version=0,
        status="skipped" if skipped else "submitted",
        result={} if skipped else annotation["result"],
        seconds=annotation["lead_time"],
        created_at=moment(annotation["created_at"]),
        updated_at=moment(annotation["updated_at"]),
    )


def _comparison(task: Mapping[str, Any]) -> str:
    """The comparison that a task claims to be about; empty if it is no task of ours."""
    name = task["data"].get("comparison") if isinstance(task["data"], dict) else None
    return name if isinstance(name, str) else ""


def _is_unread(task: Mapping[str, Any], known: SentTask | None) -> bool:
    """Whether a listed task has changed since its annotations were read, or has some and never was read."""
    if known is None or not known.updated_at:
        return bool(task["total_annotations"] or task["cancelled_annotations"])
    return bool(known.updated_at != task["updated_at"])


def _surplus(tasks: Iterable[Mapping[str, Any]]) -> list[int]:
    """Unlabelled tasks of comparisons that have another task: all but a labelled one, or all but the first."""
    by_comparison: dict[str, list[Mapping[str, Any]]] = {}
    for task in tasks:
        by_comparison.setdefault(task["data"]["comparison"], []).append(task)
    surplus: list[int] = []
    for group in by_comparison.values():
        unlabelled = [task["id"] for task in group if not (task["total_annotations"] or task["cancelled_annotations"])]
        surplus += unlabelled if len(unlabelled) < len(group) else sorted(unlabelled)[1:]
    return surplus
