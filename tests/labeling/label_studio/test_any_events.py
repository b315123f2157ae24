"""Events in any order against a server in memory: what should count does, whatever happened before."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from fake_label_studio import FakeDatabase, FakeLabelStudio, label_studio_in_memory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.label_studio.transport.errors import AnotherDatabase
from rlhf_dagster.records.tables import records

ROUND, PURPOSE, N = "round-0001", "train", 12
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=5000)
TOKEN = "0123456789abcdef0123456789abcdef01234567"
EVENTS = (
    "label",
    "edit",
    "skip",
    "delete annotation",
    "delete task",
    "delete project",
    "backup",
    "restore",
    "reset",
    "poison",
    "mend",
    "look",
    "sweep",
    "send",
)
Event = tuple[str, int]


class World:
    """A server, the loop that reads it, and the labels that should count."""

    def __init__(self, fake: FakeLabelStudio, folder: Path, frame: Any) -> None:
        self.fake, self.frame, self.rows = fake, frame, records(frame)
        self.client = LabelStudioClient(fake.url, TOKEN, 20.0)
        self.store = LabelStudioStore(
            folder / "l.sqlite", fake.url, client=lambda: self.client, settings=SETTINGS, loop_name="any"
        )
        self.store.send(frame)
        self.backup: FakeDatabase | None = None
        self.should: dict[tuple[int, str], str] = {}
        """Comparison of each label that was seen, by its number and when it was made."""
        self.deleted: set[tuple[int, str]] = set()
        """Labels that people have deleted in the database that is there."""

    def happen(self, event: str, which: int) -> None:
        notes, tasks = self.fake.annotations(), list(self.fake.database.tasks.values())
        if event == "label" and tasks:
            task = tasks[which % len(tasks)]
            row = next(row for row in self.rows if row["comparison_id"] == task["data"]["comparison"])
            self.fake.annotate(task["id"], encode({"choice": 0, "strength": 1.0}, row, SETTINGS), by=1 + which % 3)
        elif event in ("edit", "skip", "delete annotation", "poison") and notes:
            self._to_annotation(event, notes[which % len(notes)])
        elif event == "delete task" and tasks:
            task = tasks[which % len(tasks)]
            self.deleted |= {key(note) for note in task["annotations"]}
            self.fake.delete_task(task["id"])
        else:
            self._to_server(event)

    def _to_annotation(self, event: str, note: dict[str, Any]) -> None:
        if event == "delete annotation":
            self.deleted.add(key(note))
            self.fake.delete_annotation(note["id"])
        elif event == "poison":
            self.fake.poisoned.add(note["id"])
        elif event == "skip":
            self.fake.edit(note["id"], was_cancelled=True, result=[])
        else:
            self.fake.edit(note["id"], lead_time=7.0)

    def _to_server(self, event: str) -> None:
        if event == "delete project" and self.fake.database.projects:
            self.fake.delete_project(min(self.fake.database.projects))
        elif event == "backup":
            self.backup = self.fake.backup()
        elif event == "restore" and self.backup is not None:
            self.fake.restore(self.backup)
            self.deleted.clear()
        elif event == "reset":
            self.fake.reset()
            self.deleted.clear()
        elif event == "mend":
            self.fake.poisoned.clear()
        elif event in ("look", "sweep"):
            self.look(sweep=event == "sweep")
        elif event == "send":
            self._send()

    def _send(self) -> None:
        """Send the batch again, as `collect_round --again` does, after a look."""
        self.look(sweep=False)
        try:
            self.store.send(self.frame)
        except AnotherDatabase:
            self._rejoin()
        self.look(sweep=False)

    def look(self, sweep: bool) -> None:
        """Look, and answer as somebody would who knows what has happened."""
        there = {key(note) for note in self.fake.annotations()}
        by_people = {seen for seen in self.should if seen not in there} <= self.deleted
        try:
            counts = self._read(sweep)
        except AnotherDatabase:
            self._rejoin()
            return
        if not any("may be lost" in notice for notice in counts.notices):
            self._seen(forget=self.deleted)
        elif by_people:
            self.store.accept_deletions(ROUND, "test")
            self._seen(forget=self.deleted)
        else:
            self._rejoin()

    def _read(self, sweep: bool) -> Any:
        if sweep:
            self.store.read(ROUND, PURPOSE)
        return self.store.count(ROUND, PURPOSE)

    def _rejoin(self) -> None:
        recorded = {found.annotation_id for found in self._newest() if found.status == "deleted"}
        self.store.rejoin("test")
        assert {found.annotation_id for found in self._newest() if found.status == "deleted"} <= recorded
        self._seen(forget=set())
        self.deleted.clear()

    def _seen(self, forget: set[tuple[int, str]]) -> None:
        for gone in forget:
            self.should.pop(gone, None)
        hidden = {note["task"] for note in self.fake.annotations() if note["id"] in self.fake.poisoned}
        shown = [note for note in self.fake.annotations() if note["task"] not in hidden]
        self.should |= {key(note): self.fake.database.tasks[note["task"]]["data"]["comparison"] for note in shown}

    def _newest(self) -> list[Any]:
        return list({found.annotation_id: found for found in self.store.ledger.read(ROUND, PURPOSE)[0]}.values())

    def counted(self) -> list[str]:
        return sorted(found.comparison_id for found in self._newest() if found.status != "deleted")

    def is_there_and_deleted(self) -> list[str]:
        """Comparisons of which everything is recorded as deleted although something is there and can be shown."""
        hidden = {note["task"] for note in self.fake.annotations() if note["id"] in self.fake.poisoned}
        shown = {
            self.fake.database.tasks[note["task"]]["data"]["comparison"]
            for note in self.fake.annotations()
            if note["task"] not in hidden
        }
        return sorted(shown - set(self.counted()))


def key(note: dict[str, Any]) -> tuple[int, str]:
    return note["id"], note["created_at"]


@pytest.fixture
def frame(completions):
    return build_comparisons(completions(N, 2), SETTINGS, ROUND, seed=0)


SHARED = [HealthCheck.function_scoped_fixture]


@settings(max_examples=settings.default.max_examples // 3, suppress_health_check=SHARED)
@given(events=st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(0, 50)), min_size=10, max_size=30))
def test_after_any_events_what_should_count_does(frame, events: list[Event]) -> None:
    with tempfile.TemporaryDirectory() as folder, label_studio_in_memory() as fake:
        world = World(fake, Path(folder), frame)
        for event, which in [*events, ("mend", 0), ("sweep", 0)]:
            world.happen(event, which)
        assert world.is_there_and_deleted() == []
        assert world.counted() == sorted(world.should.values())
