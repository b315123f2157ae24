"""What is on record and no longer on the server: deleted by somebody, or lost.

A few annotations that are missing were deleted, and that is recorded. More of them, or those that a server which was
set back would lack as well, are asked about first, and count until a person has answered.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.reading.identity import set_back
from rlhf_dagster.labeling.label_studio.records.seen import (
    ASKED,
    DELETED,
    NOT_LISTED,
    THERE,
    KnownAnnotation,
    Project,
    SentTask,
    moment,
)
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.store import Annotation

AT_ONCE = timedelta(seconds=60)
"""Of annotations made within this time the later one may have the smaller number."""
_FEW, _SMALL_PART = 5, 0.05
"""Annotations of a project that may go missing in one look without a question: so many, or this part of them."""


@dataclass(frozen=True)
class Missing:
    """Decides what becomes of a project's annotations that are no longer there."""

    state: SyncState
    ledger: EmbeddedLabelStore
    project: Project

    def tasks_gone(self, gone: Collection[int], listed: Collection[int]) -> None:
        """Record that tasks are not there any more; ``listed`` are all that are there, whoever made them."""
        there = [found for found in self.state.annotations(gone) if found.status == THERE]
        last = max(listed, default=0)
        # A server that was set back to a time before the newest tasks has no others after them.
        lost = [found.annotation for found in there if found.task > last]
        self.state.set_status([found.annotation for found in there], NOT_LISTED)
        self.state.set_status(lost, ASKED)
        self.state.set_tasks_gone(gone)

    def project_gone(self) -> None:
        """Record that the whole project is not there any more."""
        tasks = self.state.tasks(self.project.project)
        self.tasks_gone(tasks, [])
        self.state.set_project(self.project.project, gone=1, listed=0)

    def settle(self) -> None:
        """At the end of a look: record deletions, or ask about them."""
        missing, asked = (self.state.with_status(self.project.project, status) for status in (NOT_LISTED, ASKED))
        there = self.state.number_with_status(self.project.project, THERE) + len(missing)
        if asked or len(missing) > max(_FEW, _SMALL_PART * there):
            self.state.set_status([found.annotation for found in missing], ASKED)
        else:
            delete(self.ledger, self.state, missing)


def delete(ledger: EmbeddedLabelStore, state: SyncState, annotations: Sequence[KnownAnnotation]) -> None:
    """Record that annotations were deleted."""
    newest = ledger.newest([annotation.annotation_id for annotation in annotations])
    at = datetime.now(UTC)
    ledger.append(
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
    state.set_status([annotation.annotation for annotation in annotations], DELETED)


def refuse_what_was_set_back(
    url: str,
    tasks: Iterable[Mapping[str, Any]],
    known: Mapping[int, SentTask],
    before: Mapping[int, KnownAnnotation],
) -> None:
    """Raise AnotherDatabase where tasks and their annotations show that the server has lost what it once had.

    ``before`` are annotations on record by number: those of the tasks, and those of the numbers that are listed.
    """
    for task in tasks:
        why = _set_back(task, known[task["id"]], before)
        if why:
            raise set_back(url, why)


def refuse_other_tasks(url: str, project: int, tasks: Mapping[int, str], known: Mapping[int, SentTask]) -> None:
    """Raise AnotherDatabase where a task's number was another one's: of another project, or about something else.

    ``tasks`` are the comparisons of a project's tasks by number; ``known`` are the tasks of all projects on record.
    """
    for number in tasks.keys() & known.keys():
        was = known[number]
        if (was.project, was.comparison_id) != (project, tasks[number]):
            raise set_back(
                url,
                f"task {number} was about comparison {was.comparison_id} in project {was.project}, and is about "
                f"{tasks[number] or 'none of ours'} in project {project}",
            )


def _set_back(task: Mapping[str, Any], known: SentTask, before: Mapping[int, KnownAnnotation]) -> str:
    """What shows that a task is as it was earlier; empty where nothing does."""
    listed = {found["id"]: found for found in task["annotations"]}
    for number, found in listed.items():
        old = before.get(number)
        if old is None:
            continue
        if old.task != task["id"] or (old.created_at and moment(old.created_at) != moment(found["created_at"])):
            return f"annotation {number} is not the one that had this number"
        if old.status == THERE and old.updated_at and moment(found["updated_at"]) < moment(old.updated_at):
            return f"annotation {number} was changed at {old.updated_at}, and now at {found['updated_at']}"
    lost = [
        old
        for old in before.values()
        if old.task == task["id"] and old.status == THERE and old.annotation not in listed
    ]
    if lost and known.updated_at and moment(task["updated_at"]) < moment(known.updated_at):
        return f"task {task['id']} has lost an annotation, and is as it was at {task['updated_at']}"
    new = [found for number, found in listed.items() if number not in before]
    if any(_has_earlier_number(found, old) for found in new for old in lost):
        return f"annotations of task {task['id']} have numbers that were given out before"
    return ""


def _has_earlier_number(found: Mapping[str, Any], old: KnownAnnotation) -> bool:
    """Whether an annotation was made after one on record and has a smaller number, as no server gives out twice."""
    if not old.created_at or found["id"] > old.annotation:
        return False
    return moment(found["created_at"]) > moment(old.created_at) + AT_ONCE
