"""All tasks of a project, page by page, around those that the server cannot show.

One annotation can make the server answer 500 to every listing of its task. The page is halved until that task is found:
about twice as many requests as the page's size has binary digits. The task is set aside, and the others are read.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from rlhf_dagster.labeling.label_studio.client import PAGE_SIZE, LabelStudioClient
from rlhf_dagster.labeling.label_studio.transport.errors import LabelStudioFailed

FIRST_FAILURES = 4
"""Tasks that may be found unreadable before any has been read; then it is the server that fails and not its tasks."""
MOST_FAILURES = 100
"""Tasks of one project that are set aside at most."""

Tasks = list[dict[str, Any]]


class PageReader:
    """Reads one project once; ``failed`` are the tasks that could not be read, with the reason."""

    def __init__(self, client: LabelStudioClient, project: int, aside: Iterable[int] = ()) -> None:
        """``aside`` are tasks that could not be read the last time, each of which is asked for by itself."""
        self.client, self.project = client, project
        self.failed: dict[int, str] = {}
        self._aside = sorted(aside)
        self._some_read = False

    def skeletons(self) -> Iterator[Tasks]:
        """All tasks without their annotations, which the server can show whatever somebody wrote."""
        after = 0
        while page := self.client.task_page(self.project, after, full=False):
            after = page[-1]["id"]
            yield page

    def pages(self, since: datetime | None = None) -> Iterator[Tasks]:
        """All tasks with their annotations, or those changed at ``since`` or later."""
        after = 0
        for task in self._aside:
            yield from self._between(after, task, since)
            yield self._alone(task, None, attempts=1)
            after = task
        yield from self._between(after, None, since)

    def _between(self, after: int, below: int | None, since: datetime | None) -> Iterator[Tasks]:
        while True:
            try:
                page = self.client.task_page(self.project, after, since, below_id=below)
            except LabelStudioFailed as error:
                ids = self._ids(error, after, below, since)
                yield self._halved(ids, since)
                after = ids[-1]
                continue
            self._some_read |= bool(page)
            if page:
                yield page
            if len(page) < PAGE_SIZE:
                return
            after = page[-1]["id"]

    def _ids(self, error: LabelStudioFailed, after: int, below: int | None, since: datetime | None) -> list[int]:
        """Which tasks a page that failed would have held; raises where the failure is no matter of single tasks."""
        if error.status != 500:
            raise error
        ids = self.client.task_ids(self.project, after, since, below_id=below)
        if not ids:
            raise error
        return ids

    def _halved(self, ids: Sequence[int], since: datetime | None) -> Tasks:
        """The tasks of a page that failed, without those that made it fail."""
        if len(ids) == 1:
            return self._alone(ids[0], since)
        middle = len(ids) // 2
        return self._half(ids[:middle], since) + self._half(ids[middle:], since)

    def _half(self, ids: Sequence[int], since: datetime | None) -> Tasks:
        if len(ids) == 1:
            return self._alone(ids[0], since)
        try:
            tasks = self.client.task_page(self.project, ids[0] - 1, since, below_id=ids[-1] + 1)
        except LabelStudioFailed as error:
            if error.status != 500:
                raise
            return self._halved(ids, since)
        self._some_read |= bool(tasks)
        return tasks

    def _alone(self, task: int, since: datetime | None, attempts: int = 2) -> Tasks:
        """One task, or none where it cannot be read; asked for twice, because a server can fail once by chance."""
        for _ in range(attempts):
            try:
                tasks = self.client.task_page(self.project, task - 1, since, page_size=1, below_id=task + 1)
            except LabelStudioFailed as error:
                failure = error
            else:
                self._some_read |= bool(tasks)
                return tasks
        self._set_aside(task, failure)
        return []

    def _set_aside(self, task: int, error: LabelStudioFailed) -> None:
        self.failed[task] = f"the server answers with status {error.status}"
        at_most = MOST_FAILURES if self._some_read else len(self._aside) + FIRST_FAILURES
        if error.status != 500 or len(self.failed) > at_most:
            raise error
