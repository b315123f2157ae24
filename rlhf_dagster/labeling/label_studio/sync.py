"""Everything that happened to a project's annotations since we last looked, as versions in the ledger."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.people import UNKNOWN, People
from rlhf_dagster.labeling.label_studio.reading.identity import Identity
from rlhf_dagster.labeling.label_studio.reading.missing import Missing, refuse_other_tasks, refuse_what_was_set_back
from rlhf_dagster.labeling.label_studio.reading.pages import PageReader
from rlhf_dagster.labeling.label_studio.reading.texts import (
    first_digests,
    made_by_others,
    read_again,
    still_aside,
    with_other_texts,
)
from rlhf_dagster.labeling.label_studio.records.seen import (
    CARRIED,
    NOT_LISTED,
    THERE,
    KnownAnnotation,
    Project,
    SentTask,
    moment,
)
from rlhf_dagster.labeling.label_studio.records.versions import as_version, says_the_same, seen, writer
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.label_studio.transport.answers import WrongShape
from rlhf_dagster.labeling.label_studio.transport.errors import LabelStudioGone, nonsense

OVERLAP = timedelta(seconds=60)
"""Reading begins this long before the newest change: an earlier change may be committed after a later one."""


class Synchroniser:
    """Reads one server into the ledger. The caller holds the loop's lock: one reader at a time.

    What is seen again counts again, and the newest state counts. Nothing is recorded before the server has shown that
    it is the one we know (:mod:`~rlhf_dagster.labeling.label_studio.reading.identity`), and nothing as deleted that may
    be there (:mod:`~rlhf_dagster.labeling.label_studio.reading.missing`).
    """

    def __init__(
        self,
        client: LabelStudioClient,
        state: SyncState,
        ledger: EmbeddedLabelStore,
        people: People,
        identity: Identity,
    ) -> None:
        self.client, self.state, self.ledger, self.people, self.identity = client, state, ledger, people, identity

    def read_changes(self, project: Project) -> None:
        """Read what has changed. Where nothing has, this is one small request."""
        if project.gone and not self._is_back(project):
            return
        try:
            total, newest = self.client.probe(project.project)
        except LabelStudioGone:
            self._gone(project)
            return
        if project.gone or project.unsure or total != project.listed or _is_earlier(newest, project.newest):
            self.sweep(project)
        elif newest is not None and (newest != project.newest or _is_due(project)) and self._is_confirmed(project):
            self._read_since(project, moment(project.newest) - OVERLAP if project.newest else None, project.newest)
            Missing(self.state, self.ledger, project).settle()

    def sweep(self, project: Project) -> None:
        """Compare all tasks with the server's: find new, deleted and changed ones, and delete unlabelled duplicates."""
        if not self._is_confirmed(project):
            return
        began, known = time.time(), self.state.tasks(project.project)
        never_read = project.newest is None
        listed = self._read_all(project) if never_read else self._listed(project)
        found = self._adopt(project, listed.values())
        surplus = [identity for identity in _surplus(found.values()) if self.client.is_untouched(identity)]
        gone = known.keys() - found.keys()
        if gone:
            self._count_again(project, len(listed))
        if surplus:
            self.client.delete_tasks(project.project, surplus)
        missing = Missing(self.state, self.ledger, project)
        missing.tasks_gone(gone | set(surplus), listed)
        self.state.set_project(project.project, listed=len(listed) - len(surplus))
        self._read_what_changed(project, found, began)
        missing.settle()

    def _read_what_changed(self, project: Project, found: Mapping[int, dict[str, Any]], began: float) -> None:
        """Read the listed tasks whose annotations are not on record as they are now."""
        aside, known = read_again(self.state.aside(project.project)), self.state.tasks(project.project)
        unread = [task for key, task in found.items() if key not in aside and _is_unread(task, known.get(key))]
        changed = [moment(task["updated_at"]) for task in unread]
        newest = max((task["updated_at"] for task in found.values()), key=moment, default=None)
        if project.newest is not None and (changed or aside):
            self._read_since(project, min(changed, default=moment(newest or project.newest)), newest)
        else:
            self.state.set_read(project, newest, began)

    def _is_confirmed(self, project: Project) -> bool:
        """Whether the server has the project; where it is the same server without it, that is recorded."""
        there = self.identity.require(project, self.state)
        if not there:
            Missing(self.state, self.ledger, project).project_gone()
        return there

    def _gone(self, project: Project) -> None:
        if self._is_confirmed(project):
            raise LabelStudioGone(f"Label Studio at {self.client.url} lists no tasks of project {project.project}.")

    def _is_back(self, project: Project) -> bool:
        """Whether a project that was gone is there again."""
        if not self.identity.is_there(project, self.state):
            return False
        self.state.set_project(project.project, gone=0)
        return True

    def _count_again(self, project: Project, listed: int) -> None:
        """Raises LabelStudioError where the server has more tasks than it listed, so that none is taken for deleted."""
        total, _ = self.client.probe(project.project)
        if total > listed:
            short = WrongShape(f"it listed {listed:,} tasks of project {project.project} and counts {total:,}")
            raise nonsense(self.client.url, "GET api/tasks/", short)

    def _listed(self, project: Project) -> dict[int, dict[str, Any]]:
        """All tasks of the project, by id."""
        pages = PageReader(self.client, project.project).skeletons()
        return {task["id"]: task for page in pages for task in page}

    def _read_all(self, project: Project) -> dict[int, dict[str, Any]]:
        """All tasks of a project that was never read, by id, their annotations taken in."""
        reader = self._reader(project)
        listed: dict[int, dict[str, Any]] = {}
        others: dict[int, str] = {}
        for page in reader.pages():
            listed |= {task["id"]: task for task in page}
            self._adopt(project, page)
            others |= self._take_in(project, page)
        read = set(listed)
        if reader.failed:
            listed = self._listed(project) | listed
            self._adopt(project, listed.values())
        self._set_aside(project, others | reader.failed, read)
        return listed

    def _reader(self, project: Project) -> PageReader:
        return PageReader(self.client, project.project, read_again(self.state.aside(project.project)))

    def _set_aside(self, project: Project, found: Mapping[int, str], read: set[int]) -> None:
        """Record which tasks cannot be read, by what was found of those ``read`` now."""
        aside, there = self.state.aside(project.project), self.state.tasks(project.project)
        self.state.set_aside(project.project, still_aside(aside, there, read) | dict(found))

    def _adopt(self, project: Project, tasks: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
        """Record the tasks that are ours and return them by id, without tasks made by hand in the project.

        One that shows other texts than the first task of its comparison is not ours.
        """
        tasks = list(tasks)
        refuse_other_tasks(
            self.client.url,
            project.project,
            {task["id"]: _comparison(task) for task in tasks},
            self.state.all_tasks(),
        )
        sent = self.ledger.comparisons_by_id({_comparison(task) for task in tasks} - {""})
        ours = {task["id"]: task for task in tasks if _comparison(task) in sent}
        known = self.state.tasks(project.project)
        others = made_by_others(ours, known)
        ours = {identity: task for identity, task in ours.items() if identity not in others}
        new = {identity: _comparison(task) for identity, task in ours.items() if identity not in known}
        self.state.add_tasks(project.project, new, project.labels_wanted)
        self.state.set_digests(first_digests(ours, known))
        return ours

    def _read_since(self, project: Project, since: datetime | None, newest: str | None) -> None:
        """Read what was changed at ``since`` or later; ``newest`` is the newest change known of."""
        began, reader = time.time(), self._reader(project)
        others: dict[int, str] = {}
        read: set[int] = set()
        for page in reader.pages(since):
            others |= self._take_in(project, page)
            read |= {task["id"] for task in page}
            newest = max([task["updated_at"] for task in page] + ([newest] if newest else []), key=moment, default=None)
        self._set_aside(project, others | reader.failed, read)
        self.state.set_read(project, newest, began)

    def _take_in(self, project: Project, page: list[dict[str, Any]]) -> dict[int, str]:
        """Record the annotations of some tasks; those on record that the server no longer has are missing.

        Returns the tasks that are left as they are on record, with the reason.
        """
        known = self.state.tasks(project.project)
        tasks = {
            task["id"]: task
            for task in page
            if task["id"] in known and known[task["id"]].updated_at != task["updated_at"]
        }
        others = with_other_texts(tasks, known)
        self.state.set_digests(first_digests(tasks, known))
        tasks = {key: task for key, task in tasks.items() if key not in others}
        there = {annotation["id"] for task in tasks.values() for annotation in task["annotations"]}
        before = {found.annotation: found for found in self.state.annotations(tasks)}
        before |= self.state.by_number(there - before.keys())
        before = self._without_others(tasks, before)
        refuse_what_was_set_back(self.client.url, tasks.values(), known, before)
        unsure = self._mark_missing(tasks, before, there)
        self._record(tasks, known, before)
        # Last, so that a task whose annotations were not recorded is read again.
        self.state.set_updated({key: task["updated_at"] for key, task in tasks.items() if key not in unsure})
        return others

    def _without_others(
        self, tasks: Mapping[int, Mapping[str, Any]], before: dict[int, KnownAnnotation]
    ) -> dict[int, KnownAnnotation]:
        """The record without annotations from before a set-back that are lost: their numbers and names are free."""
        made = {found["id"]: moment(found["created_at"]) for task in tasks.values() for found in task["annotations"]}
        others = {
            number
            for number, found in before.items()
            if found.status == CARRIED and made.get(number) != moment(found.created_at)
        }
        self.state.forget(others)
        return {number: found for number, found in before.items() if number not in others}

    def _mark_missing(
        self, tasks: Mapping[int, dict[str, Any]], before: Mapping[int, Any], there: set[int]
    ) -> set[int]:
        """Mark what is missing; returns the tasks that count more annotations than they list, of which nothing is."""
        lost = [found for found in before.values() if found.status == THERE and found.annotation not in there]
        unsure = {found.task for found in lost if _lists_too_few(tasks[found.task])}
        self.state.set_status([found.annotation for found in lost if found.task not in unsure], NOT_LISTED)
        return unsure

    def _record(
        self, tasks: Mapping[int, dict[str, Any]], known: Mapping[int, SentTask], before: Iterable[int]
    ) -> None:
        """Record all annotations of some tasks; those with the numbers ``before`` are on record already."""
        found = [
            (annotation, task["id"], known[task["id"]].comparison_id)
            for task in tasks.values()
            for annotation in task["annotations"]
        ]
        names = self._names({writer(annotation) for annotation, _, _ in found})
        ids = self.state.identify(
            seen(annotation, task, comparison, names[writer(annotation)]) for annotation, task, comparison in found
        )
        newest = self.ledger.newest(ids[number] for number in before if number in ids)
        self.ledger.append(
            as_version(annotation, ids[annotation["id"]], comparison, names[writer(annotation)])
            for annotation, _, comparison in found
            # Whoever marks an annotation, or gives it another name, has not written it.
            if not says_the_same(annotation, newest.get(ids[annotation["id"]]))
        )

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


def _is_due(project: Project) -> bool:
    """Whether changes shortly before the newest one must be read once more: some may have been committed late.

    That is due once, ``OVERLAP`` after the newest change was first read. A sweep finds late changes too, so reading for
    training does not have to wait for this.
    """
    settled = project.newest_seen + OVERLAP.total_seconds()
    return project.last_read < settled <= time.time()


def _is_earlier(newest: str | None, known: str | None) -> bool:
    """Whether the newest change is older than one that was read: tasks are gone, or the server was set back."""
    return known is not None and (newest is None or moment(newest) < moment(known))


def _lists_too_few(task: Mapping[str, Any]) -> bool:
    return bool(task["total_annotations"] + task["cancelled_annotations"] > len(task["annotations"]))


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
