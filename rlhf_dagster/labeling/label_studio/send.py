"""Tasks for comparisons, each exactly once, whatever was killed, timed out or deleted on the way."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.configs import config_hash, instructions_html, labelling_config
from rlhf_dagster.labeling.label_studio.reading.identity import page_hash, set_back
from rlhf_dagster.labeling.label_studio.reading.texts import data_digest
from rlhf_dagster.labeling.label_studio.records.seen import Project, SentTask
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.label_studio.tasks import task_data
from rlhf_dagster.labeling.label_studio.transport.errors import LabelStudioTimeout

CHUNK = 1000
"""Tasks in one request. During a larger one, annotators would wait too long for a server on SQLite."""
ATTEMPTS = 4
"""Imports of one chunk that may time out before we give up."""
SETTLED = 3
"""Equal counts of tasks in a row after which an import that was not answered is taken to have ended."""
_PAUSE = 2.0
"""Seconds between two such counts."""
TITLE_LENGTH = 50
_PURPOSES = {"train": "comparisons", "evaluation": "A/B judgments", "demonstrations": "writing"}

_Row = Mapping[str, Any]


class Sender:
    """Sends comparisons to one server. The caller holds the loop's lock: one sender at a time."""

    def __init__(
        self,
        client: LabelStudioClient,
        state: SyncState,
        settings: LabelingSettings,
        loop_name: str,
        sweep: Callable[[Project], None],
        given: Callable[[str, str], Mapping[str, int]],
    ) -> None:
        """``sweep`` brings our record of a project's tasks up to the server's.

        ``given`` counts the labels on record of each comparison of a round, by its key and purpose.
        """
        self.client, self.state, self.settings, self.loop_name = client, state, settings, loop_name
        self.sweep, self.given = sweep, given

    def send(self, rows: Sequence[_Row]) -> int:
        """Make the missing tasks for ``rows`` (of COMPARISONS), in their order; returns how many were missing."""
        groups: dict[tuple[str, str, str], list[_Row]] = {}
        for row in rows:
            groups.setdefault((row["round"], row["purpose"], row["kind"]), []).append(row)
        return sum(self._send_group(key, group) for key, group in groups.items())

    def _send_group(self, key: tuple[str, str, str], rows: Sequence[_Row]) -> int:
        sent = {task.comparison_id for older in self._older(key) for task in self._tasks(older)}
        missing = self._wanting(key, [row for row in rows if row["comparison_id"] not in sent])
        if missing:
            project = self._project(key, missing)
            # The project may have been made, and filled, just before an earlier process was killed.
            there = {task.comparison_id for task in self._tasks(project)}
            missing = [row for row in missing if row["comparison_id"] not in there]
            for start in range(0, len(missing), CHUNK):
                self._import(project, missing[start : start + CHUNK])
        wanted = {row["comparison_id"]: int(row["labels_wanted"]) for row in rows}
        for project in self._older(key):
            self._set_overlaps(project, wanted)
        return len(missing)

    def _wanting(self, key: tuple[str, str, str], rows: Sequence[_Row]) -> list[_Row]:
        """The rows without as many labels as they want: what people have judged already is not asked again."""
        given = self.given(*key[:2]) if rows else {}
        return [row for row in rows if given.get(row["comparison_id"], 0) < int(row["labels_wanted"])]

    def _older(self, key: tuple[str, str, str]) -> list[Project]:
        """The projects of a round that are there, whatever their labelling config."""
        return [found for found in self.state.projects(*key[:2]) if found.kind == key[2] and not found.gone]

    def _tasks(self, project: Project) -> list[SentTask]:
        """Tasks that are there now, listed anew unless the project is new."""
        if project.unsure:
            self._wait_until_settled(project)
        if project.unsure or project.listed:
            self.sweep(project)
            self.state.set_project(project.project, unsure=0)
        return list(self.state.tasks(project.project).values())

    def _import(self, project: Project, rows: Sequence[_Row]) -> None:
        """Import one chunk. Where no answer comes, find out which tasks were made before sending any again."""
        todo = list(rows)
        for attempt in range(1, ATTEMPTS + 1):
            self.state.set_project(project.project, unsure=1)
            try:
                data = [self._data(row) for row in todo]
                ids = self.client.import_tasks(project.project, [{"data": one} for one in data])
            except LabelStudioTimeout:
                if attempt == ATTEMPTS:
                    raise
                self._wait_until_settled(project)
                self.sweep(project)
                there = {task.comparison_id for task in self.state.tasks(project.project).values()}
                todo = [row for row in todo if row["comparison_id"] not in there]
                if not todo:
                    self.state.set_project(project.project, unsure=0)
                    return
            else:
                if not self.state.all_tasks().keys().isdisjoint(ids):
                    raise set_back(self.client.url, f"it gives out numbers of tasks again, such as {ids[0]}")
                comparisons = {task: str(row["comparison_id"]) for task, row in zip(ids, todo, strict=True)}
                digests = {task: data_digest(one) for task, one in zip(ids, data, strict=True)}
                self.state.add_tasks(project.project, comparisons, project.labels_wanted, sure=True, digests=digests)
                return

    def _data(self, row: _Row) -> dict[str, Any]:
        return task_data(row, self.settings)

    def _set_overlaps(self, project: Project, wanted: Mapping[str, int]) -> None:
        """Tell the server which tasks want another number of annotations than the project's."""
        for task in self.state.tasks(project.project).values():
            overlap = wanted.get(task.comparison_id, task.overlap)
            if overlap != task.overlap:
                self.client.set_overlap(task.task, overlap)
                self.state.set_overlap(task.task, overlap)

    def _wait_until_settled(self, project: Project) -> None:
        """Wait until the server's count of tasks stands still: it may be at work on a request it never answered."""
        counts: list[int] = []
        while len(counts) < SETTLED or len(set(counts[-SETTLED:])) > 1:
            if counts:
                time.sleep(_PAUSE)
            counts.append(self.client.probe(project.project)[0])

    def _project(self, key: tuple[str, str, str], rows: Sequence[_Row]) -> Project:
        """The project for a round's comparisons of one kind; another one where the labelling page has changed."""
        round_key, purpose, kind = key
        xml = labelling_config(kind, purpose, self.settings)
        config = config_hash(xml)
        if not any(project.config == config for project in self._older(key)):
            labels_wanted = Counter(int(row["labels_wanted"]) for row in rows).most_common(1)[0][0]
            title = f"{self.loop_name[:24]} {round_key}: {_PURPOSES.get(purpose, purpose)}"[:TITLE_LENGTH]
            # The marker finds a project that was made just before an earlier process was killed.
            marker = self.state.marker(key, config)
            made = [one["id"] for one in self.client.projects(title) if marker in one["description"]]
            instructions = instructions_html(kind, purpose, self.settings)
            identity = made[0] if made else self.client.create_project(title, xml, instructions, labels_wanted, marker)
            found, settings = self.client.project(identity), self.settings.model_dump_json()
            if self.state.tasks(identity, gone=True):
                raise set_back(self.client.url, f"project {identity} is not the one that had this number")
            self.state.add_project(
                identity,
                key,
                config,
                settings,
                labels_wanted,
                unsure=bool(made),
                created_at=found["created_at"],
                page=page_hash(found),
            )
        return next(project for project in self._older(key) if project.config == config)
