"""A label store whose annotators work in Label Studio."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd

from rlhf_dagster.common.batches import batches
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore, annotation_id
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.people import People, email_of
from rlhf_dagster.labeling.label_studio.reading.identity import Identity
from rlhf_dagster.labeling.label_studio.reading.missing import delete
from rlhf_dagster.labeling.label_studio.reading.notices import notices
from rlhf_dagster.labeling.label_studio.reading.rejoin import Rejoined, rejoin
from rlhf_dagster.labeling.label_studio.reading.servers import KnownServers, Said
from rlhf_dagster.labeling.label_studio.reading.unknown import unknown_projects
from rlhf_dagster.labeling.label_studio.records.seen import ASKED
from rlhf_dagster.labeling.label_studio.records.versions import as_version, seen
from rlhf_dagster.labeling.label_studio.results import decoded, decoding, encode
from rlhf_dagster.labeling.label_studio.send import Sender
from rlhf_dagster.labeling.label_studio.session import AnnotatorSession
from rlhf_dagster.labeling.label_studio.state import SyncState
from rlhf_dagster.labeling.label_studio.sync import Synchroniser
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.store import Annotation, LabelCounts, SendResult, Submission
from rlhf_dagster.lineage.people import people_of
from rlhf_dagster.records.machines import is_machine
from rlhf_dagster.records.pseudonyms import Pseudonyms
from rlhf_dagster.records.tables import records
from rlhf_dagster.storage.local import LocalStore

PURPOSES = ("train", "evaluation", "demonstrations")
_AT_ONCE = 1000


class LabelStudioStore:
    """A :class:`~rlhf_dagster.labeling.store.LabelStore` in front of a Label Studio server.

    The ledger, in the file or at the address ``place``, is the truth: every member of a Label Studio Community
    organization can change or delete anything, so all versions that were ever seen are kept there, as the server held
    them, and are translated when they are read. Rounds that never had a project on the server, such as imported
    judgments, and those that are decided are read from the ledger alone.
    """

    def __init__(
        self,
        place: Path | str | LedgerAddress | EmbeddedLabelStore,
        url: str,
        client: Callable[[], LabelStudioClient],
        settings: LabelingSettings,
        loop_name: str,
        folder: Path | None = None,
        decided: Callable[[str], bool] = lambda _: False,
        pseudonyms: Callable[[], Pseudonyms] | None = None,
    ) -> None:
        """``client`` is called, and the server asked for its version, when the first request is made.

        ``folder`` holds the key to the pseudonyms; by default that of the ledger's file. ``decided`` says of a round
        that no label of it is waited for any more: it is read from the ledger alone, and its project may be tidied
        away. ``pseudonyms`` are those that the loop gives; by default those of a loop in ``folder``.
        """
        self.ledger = place if isinstance(place, EmbeddedLabelStore) else EmbeddedLabelStore(place)
        self._folder = folder or self.ledger.path.parent
        self._pseudonyms = pseudonyms or (lambda: people_of(LocalStore(self._folder), self.ledger.annotators))
        self._url, self._servers, self._decided = url, KnownServers(self.ledger.address), decided
        self.settings, self.loop_name = settings, loop_name
        self._connect, self._confirmed = client, False
        self._sessions: dict[str, AnnotatorSession] = {}
        self._members: set[str] = set()

    @cached_property
    def client(self) -> LabelStudioClient:
        client = self._connect()
        client.check()
        return client

    @cached_property
    def people(self) -> People:
        return People(self._folder / "annotators.json", self._pseudonyms)

    @cached_property
    def _identity(self) -> Identity:
        return Identity(self.client, self._servers, self._url)

    @property
    def _state(self) -> SyncState:
        """What we know of the server at our address."""
        known = self._servers.at(self._url)
        return self._servers.state(known.key if known else self._url)

    @property
    def _synchroniser(self) -> Synchroniser:
        return Synchroniser(self.client, self._state, self.ledger, self.people, self._identity)

    def send(self, comparisons: pd.DataFrame) -> SendResult:
        rows = records(comparisons)
        if not rows:
            return SendResult(0, 0)
        with self._locked():
            self.ledger.send(comparisons)
            self._identity.enlist()
            sent = self._send(rows)
        return SendResult(sent=sent, already_there=len(rows) - sent)

    def _send(self, rows: Sequence[Mapping[str, Any]]) -> int:
        synchroniser = self._synchroniser
        state = synchroniser.state
        sender = Sender(self.client, state, self.settings, self.loop_name, synchroniser.sweep, self._given)
        return sender.send(rows)

    def _given(self, round_key: str, purpose: str) -> Counter[str]:
        """How many labels by people of each comparison of a round are on record, wherever they were given."""
        newest = {found.annotation_id: found for found in self.ledger.read(round_key, purpose)[0]}
        given = (found for found in newest.values() if found.status == "submitted")
        return Counter(found.comparison_id for found in given if not is_machine(found.annotator))

    def count(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        self._synchronise([(round_key, purpose)])
        return self.count_on_record(round_key, purpose, since)

    def count_on_record(self, round_key: str, purpose: str, since: int = 0) -> LabelCounts:
        """Like :meth:`count`, of what was read so far: the server is not asked."""
        reading = decoding(self.ledger, self._state, round_key, purpose)
        counts = self.ledger.count_read(round_key, purpose, since, reading)
        return replace(counts, notices=self.notices(round_key, purpose))

    def unknown_projects(self) -> list[str]:
        """What the server has of this loop that the loop does not know of, a sentence each; asks the server."""
        self._identity.confirm()
        return unknown_projects(self.client, self._state, self.loop_name)

    def notices(self, round_key: str, purpose: str) -> list[str]:
        """What people should know of a round, by what was read so far: labels missing, tasks that cannot be read."""
        if self._decided(round_key):
            return []
        state = self._state
        return notices(state, state.projects(round_key, purpose))

    def read(self, round_key: str, purpose: str, since: int | None = None) -> tuple[list[Annotation], int]:
        """As every store does; reading all (``since=None``) also looks for tasks that were deleted in Label Studio."""
        self._synchronise([(round_key, purpose)], sweep=since is None)
        return self._translated(round_key, purpose, since)

    def annotations(self, round_key: str, purpose: str) -> Iterator[Annotation]:
        self._synchronise([(round_key, purpose)], sweep=True)
        state, found = self._state, self.ledger.annotations(round_key, purpose)
        parts = (decoded(part, self.ledger, state, round_key, purpose) for part in batches(found, _AT_ONCE))
        return chain.from_iterable(parts)

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
        return [f"{self._url}/projects/{project.project}/data" for project in projects if not project.gone]

    def accept_deletions(self, round_key: str, by: str) -> int:
        """Record a round's missing annotations as deleted, as a person says that they are; returns how many.

        The server is looked at first: what is there again is not deleted.
        """
        rounds = [(round_key, purpose) for purpose in PURPOSES]
        self._synchronise(rounds, sweep=True)
        with self._locked():
            state = self._state
            projects = [project for key in rounds for project in state.projects(*key)]
            missing = [found for project in projects for found in state.with_status(project.project, ASKED)]
            said = f"{len(missing):,} labels of {round_key} that are not in Label Studio any more were deleted."
            self._servers.record(by, "accept-deletions", said)
            delete(self.ledger, state, missing)
        return len(missing)

    def answers(self) -> list[Said]:
        """What people have said about missing labels and servers that were others, oldest first."""
        return self._servers.answers()

    def rejoin(self, by: str) -> tuple[Rejoined, int]:
        """Go on with the server that is there, as a person says; returns what it has, and how many tasks it was sent.

        What it does not have stays on record and counts. Comparisons of undecided rounds that have no task there and
        want labels are sent again.
        """
        with self._locked():
            found = rejoin(self._identity, self._servers, self._decided)
            self._servers.record(by, "rejoin", f"Went on with {found.database} at {found.address}.")
            rounds = sorted({(project.round, project.purpose) for project in [*found.found, *found.lost]})
            self._read_projects(rounds, sweep=True)
            sent = sum(self._send(records(self.ledger.comparisons(*key))) for key in rounds)
        return found, sent

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
        identity = self._state.identify([seen(answer, task, *key)])[answer["id"]]
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
            self._confirm(present)
            self._read_projects(present, sweep)

    def _read_projects(self, rounds: Iterable[tuple[str, str]], sweep: bool) -> None:
        synchroniser = self._synchroniser
        for project in [project for key in rounds for project in synchroniser.state.projects(*key)]:
            if sweep and not project.gone:
                synchroniser.sweep(project)
            else:
                synchroniser.read_changes(project)

    def _confirm(self, rounds: Iterable[tuple[str, str]]) -> None:
        """See once that the server is the one that the rounds went to; raises UserError where it is another."""
        if self._confirmed:
            return
        self._identity.confirm()
        for key in rounds:
            self._require_here(*key)
        self._confirmed = True

    def _require_here(self, round_key: str, purpose: str) -> None:
        known = self._servers.at(self._url)
        went = [found for found in self._servers.in_use() if found.key in self._state.servers(round_key, purpose)]
        if known is None or known.key not in {found.key for found in went}:
            raise UserError(
                f"{round_key} was sent to Label Studio at {went[-1].address}, and label_store.url is {self._url}, "
                "where another database answers; correct it, or, to go on with that one: rlhf label-studio rejoin."
            )

    def _has_projects(self, round_key: str, purpose: str) -> bool:
        """Whether a round's labels come from a server, by our records: not one that is decided or that was left."""
        if self._decided(round_key):
            return False
        left = {known.key for known in self._servers.all() if known.left}
        return bool(set(self._state.servers(round_key, purpose)) - left)

    def _locked(self) -> AbstractContextManager[None]:
        """One reader or sender at a time: on all machines where the ledger is in Postgres, else on this one."""
        return self.ledger.exclusive("label_studio", self._folder)
