"""A label store whose annotators work in Label Studio."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore, annotation_id
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.people import People, email_of
from rlhf_dagster.labeling.label_studio.results import decoded, encode
from rlhf_dagster.labeling.label_studio.send import Sender
from rlhf_dagster.labeling.label_studio.session import AnnotatorSession
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.label_studio.sync import Synchroniser, as_version
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.store import Annotation, LabelCounts, SendResult, Submission
from rlhf_dagster.records.tables import records


class LabelStudioStore:
    """A :class:`~rlhf_dagster.labeling.store.LabelStore` in front of a Label Studio server.

    The ledger, in the file or at the address ``place``, is the truth: every member of a Label Studio Community
    organization can change or delete anything, so all versions that were ever seen are kept there, as the server held
    them, and are translated when they are read. Rounds that never had a project on the server, such as imported
    judgments, are read from the ledger alone.
    """

    def __init__(
        self,
        place: Path | str | LedgerAddress | EmbeddedLabelStore,
        url: str,
        client: Callable[[], LabelStudioClient],
        settings: LabelingSettings,
        loop_name: str,
        folder: Path | None = None,
    ) -> None:
        """``client`` is called, and the server asked for its version, when the first request is made.

        ``folder`` holds the key to the pseudonyms; by default that of the ledger's file.
        """
        self.ledger = place if isinstance(place, EmbeddedLabelStore) else EmbeddedLabelStore(place)
        self._folder = folder or self.ledger.path.parent
        self._url, self._state = url, SyncState(self.ledger.address, url)
        self.settings, self.loop_name = settings, loop_name
        self._connect = client
        self._sessions: dict[str, AnnotatorSession] = {}
        self._members: set[str] = set()

    @cached_property
    def client(self) -> LabelStudioClient:
        client = self._connect()
        client.check()
        return client

    @cached_property
    def people(self) -> People:
        return People(self._folder / "annotators.json")

    @cached_property
    def _synchroniser(self) -> Synchroniser:
        return Synchroniser(self.client, self._state, self.ledger, self.people)

    def send(self, comparisons: pd.DataFrame) -> SendResult:
        rows = records(comparisons)
        if not rows:
            return SendResult(0, 0)
        with self._locked():
            self.ledger.send(comparisons)
            sender = Sender(self.client, self._state, self.settings, self.loop_name, self._synchroniser.sweep)
            sent = sender.send(rows)
        return SendResult(sent=sent, already_there=len(rows) - sent)

    def count(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        self._synchronise([(round_key, purpose)])
        return self.ledger.count_read(round_key, purpose, since, lambda: self._translated(round_key, purpose, None)[0])

    def read(self, round_key: str, purpose: str, since: int | None = None) -> tuple[list[Annotation], int]:
        """As every store does; reading all (``since=None``) also looks for tasks that were deleted in Label Studio."""
        self._synchronise([(round_key, purpose)], sweep=since is None)
        return self._translated(round_key, purpose, since)

    def comparisons(self, round_key: str, purpose: str) -> pd.DataFrame:
        frame = self.ledger.comparisons(round_key, purpose)
        if not self._has_projects(round_key, purpose):
            return frame
        tasks = {
            task.comparison_id: task
            for project in self._state.projects(round_key, purpose)
            for task in reversed(self._state.tasks(project.project).values())
        }
        found = [tasks.get(comparison) for comparison in frame["comparison_id"]]
        return frame.assign(
            project=["" if task is None else str(task.project) for task in found],
            task_id=["" if task is None else str(task.task) for task in found],
        )

    def addresses(self, round_key: str, purpose: str) -> list[str]:
        """Where annotators find a round's tasks."""
        projects = self._state.projects(round_key, purpose)
        return [f"{self._url}/projects/{project.project}/data" for project in projects]

    def submit_many(self, submissions: Iterable[Submission]) -> list[str]:
        """As every store does. Each annotator is a user of Label Studio; times are by the server's clock.

        Where the server fails on the way, what was submitted stays; submitting all again submits the rest.
        """
        wanted = list(submissions)
        rows = self.ledger.comparisons_by_id({submission.comparison_id for submission in wanted})
        for submission in wanted:
            if submission.comparison_id not in rows:
                raise UserError(f"There is no comparison {submission.comparison_id} in the label store; send it first.")
        rounds = sorted({(row["round"], row["purpose"]) for row in rows.values()})
        self._synchronise(rounds)
        tasks = {
            task.comparison_id: task.task
            for key in rounds
            for project in self._state.projects(*key)
            for task in reversed(self._state.tasks(project.project).values())
        }
        self.people.add_simulated(sorted({submission.annotator for submission in wanted}))
        ids = [self._submit(submission, rows[submission.comparison_id], tasks) for submission in wanted]
        self._synchronise(rounds)
        return ids

    def _submit(self, submission: Submission, row: Mapping[str, Any], tasks: Mapping[str, int]) -> str:
        """Make, change or delete the annotator's annotation; its id."""
        there, newest = self._own(submission)
        skipped = submission.status == "skipped"
        regions = [] if skipped else encode(submission.result, row, self.settings)
        if submission.status == "deleted":
            if there is not None:
                self.client.delete_annotation(there)
        elif there is None or newest is None:
            task = tasks.get(submission.comparison_id)
            if task is None:
                raise UserError(
                    f"Comparison {submission.comparison_id} has no task in Label Studio; send its batch again."
                )
            session = self._session(submission.annotator)
            return self._record(submission, task, session.annotate(task, regions, submission.seconds, skipped))
        elif (newest.status, newest.result) != (submission.status, {} if skipped else regions):
            fields = {"result": regions, "lead_time": submission.seconds, "was_cancelled": skipped}
            changed = self._session(submission.annotator).update_annotation(there, **fields)
            return self._record(submission, changed["task"], changed)
        return newest.annotation_id if newest else annotation_id(submission.comparison_id, submission.annotator)

    def _own(self, submission: Submission) -> tuple[int | None, Annotation | None]:
        """The server's id of the annotator's annotation of the comparison, and its newest version."""
        there = self._state.on_comparison(submission.comparison_id)
        for identity, newest in self.ledger.newest(there).items():
            if newest.annotator == submission.annotator:
                return there[identity], newest
        return None, None

    def _record(self, submission: Submission, task: int, answer: Mapping[str, Any]) -> str:
        """Keep what the server made of a submission, so that no version depends on when we next look."""
        key = (submission.comparison_id, submission.annotator)
        identity = self._state.identify([(answer["id"], task, *key)])[answer["id"]]
        self.ledger.append([as_version(answer, identity, *key)])
        return identity

    def _session(self, name: str) -> AnnotatorSession:
        """The annotator's own session; who is not known there yet signs up."""
        if name not in self._sessions:
            client, email = self.client, email_of(name)
            login = (client.url, email, client.secret_for(name), client.timeout)
            if not self._members:
                self._members = {user["email"].lower() for user in client.users()}
            self._sessions[name] = (
                AnnotatorSession.login(*login)
                if email in self._members
                else AnnotatorSession.join(client.url, client.invite_url(), *login[1:])
            )
        return self._sessions[name]

    def _translated(self, round_key: str, purpose: str, since: int | None) -> tuple[list[Annotation], int]:
        """The ledger's annotations with results in our form: Label Studio's, which are lists, are decoded."""
        annotations, position = self.ledger.read(round_key, purpose, since)
        return decoded(annotations, self.ledger, self._state, round_key, purpose), position

    def _synchronise(self, rounds: Iterable[tuple[str, str]], sweep: bool = False) -> None:
        present = [key for key in rounds if self._has_projects(*key)]
        if not present:
            return
        with self._locked():
            for project in [project for key in present for project in self._state.projects(*key)]:
                if sweep:
                    self._synchroniser.sweep(project)
                else:
                    self._synchroniser.read_changes(project)

    def _has_projects(self, round_key: str, purpose: str) -> bool:
        """Whether the round was ever sent to the server, by our records. Raises UserError if it went to another one."""
        servers = self._state.servers(round_key, purpose)
        if servers and self._url not in servers:
            raise UserError(
                f"{round_key} was sent to Label Studio at {servers[-1]}, and label_store.url is {self._url}; correct "
                "it, or, if the server has moved there, send the batch again."
            )
        return bool(servers)

    def _locked(self) -> AbstractContextManager[None]:
        """One reader or sender at a time: on all machines where the ledger is in Postgres, else on this one."""
        return self.ledger.exclusive("label_studio", self._folder)
