"""What may happen to a label server, against one in memory: each line of it was a label lost or counted wrongly."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from fake_label_studio import FakeLabelStudio, label_studio_in_memory
from fake_server import Asked

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.label_studio.transport.errors import AnotherDatabase, LabelStudioError, LabelStudioFailed
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.records.tables import records

ROUND, PURPOSE, N = "round-0001", "train", 40
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=5000)
TOKEN = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def fake():
    with label_studio_in_memory() as made:
        yield made


@pytest.fixture
def frame(completions):
    return build_comparisons(completions(N, 2), SETTINGS, ROUND, seed=0)


@pytest.fixture
def open_store(fake, tmp_path) -> Callable[..., LabelStudioStore]:
    def make(**more: Any) -> LabelStudioStore:
        return LabelStudioStore(
            tmp_path / "l.sqlite",
            more.pop("url", fake.url),
            client=lambda: LabelStudioClient(fake.url, TOKEN, more.pop("timeout", 5.0)),
            settings=SETTINGS,
            loop_name="events",
            **more,
        )

    return make


@pytest.fixture
def store(open_store, frame) -> LabelStudioStore:
    """A store whose comparisons are on the server."""
    made = open_store()
    made.send(frame)
    return made


@pytest.fixture
def label(fake, frame) -> Callable[..., int]:
    """``label(n)`` has somebody judge comparison ``n``; the annotation's number."""
    rows = records(frame)

    def make(number: int, choice: Any = 0, by: int = 1) -> int:
        row = rows[number]
        regions = encode({"choice": choice, "strength": 1.0}, row, SETTINGS)
        return fake.annotate(fake.task_of(row["comparison_id"])["id"], regions, by)

    return make


def labels(store: LabelStudioStore) -> int:
    return store.count(ROUND, PURPOSE).labels


def statuses(store: LabelStudioStore) -> list[str]:
    return [found.status for found in store.read(ROUND, PURPOSE)[0]]


def test_a_task_deleted_and_brought_back_counts_again(store, fake, label) -> None:
    for number in range(3):
        label(number)
    backup = fake.backup()
    assert labels(store) == 3
    for _ in range(3):
        fake.delete_task(1)
        assert labels(store) == 2
        fake.restore(backup)
        assert labels(store) == 3
    assert statuses(store)[-2:] == ["deleted", "submitted"]


def test_an_annotation_deleted_and_brought_back_counts_again_and_can_be_deleted_again(store, fake, label) -> None:
    number = label(0)
    label(1)
    backup = fake.backup()
    assert labels(store) == 2
    for _ in range(3):
        fake.delete_annotation(number)
        assert labels(store) == 1
        fake.restore(backup)
        assert labels(store) == 2
    fake.delete_annotation(number)
    assert labels(store) == 1
    assert labels(store) == 1


def test_an_empty_listing_deletes_nothing(store, fake, label) -> None:
    for number in range(3):
        label(number)
    assert labels(store) == 3

    def empty(asked: Asked) -> Any:
        listing = asked.path.startswith("/api/tasks/") and "ordering" in asked.path and "-tasks" not in asked.path
        return (200, {"total": 0, "total_annotations": 0, "tasks": []}) if listing else None

    fake.trouble = empty
    with pytest.raises(LabelStudioError, match=r"listed 0 tasks of project 1 and counts 40"):
        store.read(ROUND, PURPOSE)
    fake.trouble = lambda _: None
    assert "deleted" not in statuses(store)


def test_a_listing_shorter_than_its_total_is_refused(store, fake, label) -> None:
    label(0)
    assert labels(store) == 1

    def short(asked: Asked) -> Any:
        if not asked.path.startswith("/api/tasks/?"):
            return None
        fake.trouble = lambda _: None
        status, body = fake.answer(asked)
        fake.trouble = short
        return status, body | {"tasks": body["tasks"][1:]}

    fake.trouble = short
    with pytest.raises(LabelStudioError, match="lists 39 tasks where it counts 40"):
        store.read(ROUND, PURPOSE)
    fake.trouble = lambda _: None
    assert labels(store) == 1


def test_a_few_deletions_are_recorded_and_many_are_asked_about(store, fake, label) -> None:
    numbers = [label(number) for number in range(20)]
    assert labels(store) == 20
    for number in numbers[:5]:
        fake.delete_annotation(number)
    assert labels(store) == 15
    for number in numbers[5:11]:
        fake.delete_annotation(number)
    counts = store.count(ROUND, PURPOSE)
    assert counts.labels == 15
    (said,) = counts.notices
    assert "6 labels of round-0001 (train) may be lost" in said
    assert "rlhf label-studio accept-deletions --round round-0001" in said
    assert labels(store) == 15
    assert store.accept_deletions(ROUND, "eve") == 6
    after = store.count(ROUND, PURPOSE)
    assert (after.labels, after.notices) == (9, [])
    assert [(answer.by, answer.action) for answer in store.answers()] == [("eve", "accept-deletions")]


def test_what_was_asked_about_and_is_back_is_not_asked_about_any_more(store, fake, label) -> None:
    for number in range(20):
        label(number)
    backup = fake.backup()
    assert labels(store) == 20
    for number in range(1, 11):
        fake.delete_task(number)
    assert store.count(ROUND, PURPOSE).notices
    assert labels(store) == 20
    fake.restore(backup)
    counts = store.count(ROUND, PURPOSE)
    assert (counts.labels, counts.notices) == (20, [])
    assert store.accept_deletions(ROUND, "eve") == 0


def test_the_last_tasks_gone_may_be_a_server_that_was_set_back(store, fake, label) -> None:
    label(N - 1)
    label(0)
    assert labels(store) == 2
    fake.delete_task(N)
    counts = store.count(ROUND, PURPOSE)
    assert counts.labels == 2
    assert "1 labels" in counts.notices[0]


def test_another_database_at_the_address_is_said_and_nothing_is_deleted(store, fake, label, open_store, frame) -> None:
    for number in range(12):
        label(number)
    assert labels(store) == 12
    fake.reset()
    for opened in (store, open_store()):
        for ask in (lambda s: s.count(ROUND, PURPOSE), lambda s: s.read(ROUND, PURPOSE), lambda s: s.send(frame)):
            with pytest.raises(AnotherDatabase, match=r"Another Label Studio database.*rlhf label-studio rejoin"):
                ask(opened)
    found, sent = open_store().rejoin("eve")
    assert (len(found.found), len(found.lost), sent) == (0, 1, N - 12)
    again = open_store()
    assert labels(again) == 12
    label(20, by=2)
    assert labels(again) == 13
    assert "deleted" not in statuses(again)
    assert again.send(frame).sent == 0


def test_ids_given_again_by_another_database_are_not_taken_for_those_known(store, fake, label, open_store) -> None:
    """An older backup: a project's tasks are there, and other people's annotations get the numbers of lost ones."""
    for number in range(4):
        label(number, 0)
    backup = fake.backup()
    for number in range(4, 12):
        label(number, 0)
    assert labels(store) == 12
    fake.restore(backup)
    label(20, 1, by=2)
    with pytest.raises(AnotherDatabase, match=r"was set back to an earlier state: annotation 5 is not the one"):
        store.count(ROUND, PURPOSE)
    found, sent = open_store().rejoin("eve")
    assert (len(found.found), found.lost, sent) == (1, [], 0)
    again = open_store()
    assert labels(again) == 13
    fake.delete_annotation(1)
    assert labels(again) == 12


@pytest.mark.parametrize("look", ["count", "read"])
def test_a_database_that_was_set_back_is_noticed(store, fake, label, look) -> None:
    label(0)
    backup = fake.backup()
    label(1)
    label(2)
    assert labels(store) == 3
    fake.restore(backup)
    with pytest.raises(AnotherDatabase, match=r"task 2 has lost an annotation.*rlhf label-studio rejoin"):
        getattr(store, look)(ROUND, PURPOSE)
    store.rejoin("eve")
    assert labels(store) == 3


def test_an_edit_that_was_set_back_is_noticed_and_then_is_what_the_server_says(store, fake, label) -> None:
    number = label(0, 0)
    backup = fake.backup()
    fake.edit(number, was_cancelled=True, result=[])
    assert store.count(ROUND, PURPOSE).skipped == 1
    fake.restore(backup)
    with pytest.raises(AnotherDatabase, match="annotation 1 was changed at"):
        store.count(ROUND, PURPOSE)
    store.rejoin("eve")
    assert labels(store) == 1


def test_a_project_that_is_gone_is_asked_about_and_counts_meanwhile(store, fake, label, open_store, frame) -> None:
    for number in range(3):
        label(number)
    backup = fake.backup()
    assert labels(store) == 3
    fake.delete_project(1)
    counts = open_store().count(ROUND, PURPOSE)
    assert counts.labels == 3
    assert "project 1 of Label Studio is gone" in counts.notices[0]
    fake.restore(backup)
    again = open_store().count(ROUND, PURPOSE)
    assert (again.labels, again.notices) == (3, [])
    fake.delete_project(1)
    assert labels(store) == 3
    assert store.send(frame).sent == N - 3
    fake.restore(backup)


def test_decided_rounds_ask_no_server(store, fake, label, open_store) -> None:
    label(0)
    assert labels(store) == 1
    fake.delete_project(1)
    asked = len(fake.server.asked)
    decided = open_store(decided=lambda key: key == ROUND)
    assert labels(decided) == 1
    assert statuses(decided) == ["submitted"]
    assert len(fake.server.asked) == asked


def test_a_server_that_moved_is_recognised_and_another_is_refused(store, fake, label, open_store) -> None:
    label(0)
    assert labels(store) == 1
    moved = open_store(url="http://moved.example.com")
    label(1)
    assert labels(moved) == 2
    assert [answer.action for answer in moved.answers()] == ["moved"]
    fake.reset()
    with pytest.raises(UserError, match=r"was sent to Label Studio at http://moved\.example\.com"):
        labels(open_store(url="http://other.example.com"))
    assert labels(open_store(decided=lambda _: True)) == 2


def test_one_poisoned_task_is_set_aside_and_the_rest_is_read(store, fake, label, frame) -> None:
    label(3)
    assert labels(store) == 1
    fake.poisoned.add(label(3, by=2))
    label(7)
    label(30)
    before = len(fake.server.asked)
    counts = store.count(ROUND, PURPOSE)
    assert counts.labels == 3
    assert "Task 4 of round-0001" in counts.notices[0]
    assert "status 500" in counts.notices[0]
    assert len(fake.server.asked) - before < 20
    assert statuses(store) == ["submitted"] * 3
    fake.poisoned.clear()
    after = store.read(ROUND, PURPOSE)
    assert len(after[0]) == 4
    assert store.count(ROUND, PURPOSE).notices == []


@pytest.mark.parametrize("poisoned", [[0], [5, 6], [0, 20, 39]])
def test_a_project_first_read_with_poisoned_tasks(store, fake, label, poisoned) -> None:
    numbers = [label(number) for number in range(N)]
    fake.poisoned |= {numbers[number] for number in poisoned}
    assert labels(store) == N - len(poisoned)
    assert len(statuses(store)) == N - len(poisoned)
    fake.poisoned.clear()
    assert len(statuses(store)) == N


def test_a_server_that_fails_at_everything_is_not_halved_for_ever(store, fake, label) -> None:
    label(0)
    for of in ("/api/tasks/", "%2Cannotations%2C"):
        before = len(fake.server.asked)
        fake.trouble = lambda asked, of=of: (500, "<!doctype html>") if of in asked.path else None
        with pytest.raises(LabelStudioFailed, match="status 500"):
            store.read(ROUND, PURPOSE)
        assert len(fake.server.asked) - before < 30
    fake.trouble = lambda _: None
    assert labels(store) == 1


NONSENSE: dict[str, Any] = {
    "null": "null",
    "list": [],
    "object": {},
    "html": "<!doctype html>",
    "empty": "",
    "number": 7,
    "no tasks": {"total": 3},
    "no total": {"tasks": []},
    "tasks an object": {"total": 1, "tasks": {}},
    "total a text": {"total": "1", "tasks": []},
    "total NaN": '{"total": NaN, "tasks": []}',
    "total huge": {"total": 10**30, "tasks": []},
    "total infinite": '{"total": 1e999, "tasks": []}',
    "task null": {"total": 1, "tasks": [None]},
    "id a text": {"total": 1, "tasks": [{"id": "7"}]},
    "deep": "[" * 100_000,
    "digits": '{"total": ' + "9" * 5000 + "}",
    "not utf-8": "\ud800",
}
PATHS = ["/api/tasks/", "/api/projects/1/", "/api/organizations/", "/api/version"]


@pytest.mark.parametrize("path", PATHS)
def test_nonsense_with_status_200_is_a_sentence_and_loses_nothing(store, fake, label, open_store, path) -> None:
    label(0)
    label(1)
    assert labels(store) == 2
    label(2)
    for what, answer in NONSENSE.items():
        body = answer if isinstance(answer, str) and what != "not utf-8" else json.dumps(answer)
        fake.trouble = lambda asked, body=body: (200, body) if asked.path.partition("?")[0] == path else None
        with pytest.raises(LabelStudioError) as caught:
            open_store().read(ROUND, PURPOSE)
        assert re.search(r"cannot be read|is no Label Studio", str(caught.value)), what
    fake.trouble = lambda _: None
    assert statuses(open_store()) == ["submitted"] * 3


TASK_FIELDS = ("id", "updated_at", "data", "annotations", "total_annotations", "cancelled_annotations")
ANNOTATION_FIELDS = ("id", "result", "completed_by", "was_cancelled", "lead_time", "created_at", "updated_at")


FIELDS = [*TASK_FIELDS, *(f"annotation.{name}" for name in ANNOTATION_FIELDS)]


@pytest.mark.parametrize("change", ["renamed", "null", "list", "text"])
def test_fields_that_an_upgrade_has_changed_lose_nothing(store, fake, label, change) -> None:
    label(0)
    assert labels(store) == 1
    label(1)
    for field in FIELDS:
        read_from_an_upgraded_server(store, fake, field, change)
        assert [found.status for found in store.ledger.read(ROUND, PURPOSE)[0]].count("deleted") == 0, field
    fake.edit(2, lead_time=2.0)
    assert labels(store) == 2


def read_from_an_upgraded_server(store: LabelStudioStore, fake: FakeLabelStudio, field: str, change: str) -> None:
    name, of_annotation = field.removeprefix("annotation."), field.startswith("annotation.")

    def changed(entry: dict[str, Any]) -> dict[str, Any]:
        new = {
            "renamed": {f"{name}_v2": entry.get(name)},
            "null": {name: None},
            "list": {name: []},
            "text": {name: "?"},
        }
        return {key: value for key, value in entry.items() if key != name} | new[change]

    def upgraded(asked: Asked) -> Any:
        if not asked.path.startswith("/api/tasks/?") or "%2Cannotations%2C" not in asked.path:
            return None
        fake.trouble = lambda _: None
        status, body = fake.answer(asked)
        fake.trouble = upgraded
        if not of_annotation:
            return status, body | {"tasks": [changed(task) for task in body["tasks"]]}
        notes = [task | {"annotations": [changed(note) for note in task["annotations"]]} for task in body["tasks"]]
        return status, body | {"tasks": notes}

    fake.trouble = upgraded
    try:
        store.count(ROUND, PURPOSE)
    except LabelStudioError as error:
        assert "cannot be read" in str(error)
    fake.trouble = lambda _: None


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", 10**400, "x", [1], -1, True, None])
def test_a_time_that_is_none_is_left_out(store, fake, label, seconds) -> None:
    number = label(0)
    fake.edit(number, lead_time=float(seconds) if seconds in ("NaN", "Infinity") else seconds)
    if seconds in ("NaN", "Infinity"):
        with pytest.raises(LabelStudioError, match="is no number"):
            labels(store)
    else:
        assert labels(store) == 1


@pytest.mark.parametrize("half", ["\ud800", "é\udfff"])
def test_half_of_a_character_in_an_answer_is_set_aside_and_stops_nothing(store, fake, frame, label, half) -> None:
    task = fake.task_of(records(frame)[0]["comparison_id"])["id"]
    region = {"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": [half]}}
    fake.annotate(task, [region])
    label(1)
    assert labels(store) == 1
    [odd, _] = store.read(ROUND, PURPOSE)[0]
    assert odd.result["raw"] == [region]
    assert store.count(ROUND, PURPOSE).labels == 1


def test_a_clock_that_is_ahead_makes_nobody_wait_for_a_year(store, fake, label) -> None:
    fake.database.now = datetime.now(UTC) + timedelta(days=365)
    label(0)
    counts = store.count(ROUND, PURPOSE)
    assert counts.newest_at is not None
    assert counts.newest_at <= datetime.now(UTC)
    assert counts.oldest_new_at <= datetime.now(UTC)
    (known,) = store._state.by_number([1]).values()
    assert datetime.fromisoformat(known.updated_at) > datetime.now(UTC) + timedelta(days=300)


def test_a_round_judged_already_is_not_sent_to_be_judged_again(open_store, frame, fake) -> None:
    store = open_store()
    store.ledger.send(frame)
    for name in frame["comparison_id"]:
        store.ledger.submit(name, "imported", {"choice": 0, "strength": 1.0})
    assert store.send(frame).sent == 0
    assert fake.database.projects == {}
    assert labels(store) == N


def test_a_loop_that_comes_back_beside_a_server_that_has_moved_on_notices_and_takes_up_its_labels(
    store, open_store, fake, label, completions, tmp_path
) -> None:
    label(0)
    assert labels(store) == 1
    backup = tmp_path / "backup.sqlite"
    copy_ledger(LedgerAddress.of(tmp_path / "l.sqlite"), LedgerAddress.of(backup))
    later = build_comparisons(completions(N, 2), SETTINGS, "round-0002", seed=0)
    store.send(later)
    row = records(later)[3]
    fake.annotate(fake.task_of(row["comparison_id"])["id"], encode({"choice": 1, "strength": 1.0}, row, SETTINGS), 1)
    label(1)
    assert store.unknown_projects() == []
    for file in tmp_path.glob("l.sqlite*"):
        file.unlink()
    backup.rename(tmp_path / "l.sqlite")

    back = open_store()
    [said] = back.unknown_projects()
    assert "round-0002 (train), which this loop has sent and does not know of" in said
    assert labels(back) == 2
    back.send(later)
    assert back.unknown_projects() == []
    assert back.count("round-0002", PURPOSE).labels == 1
    assert back.send(later).sent == 0


def test_a_project_that_comes_back_after_another_has_taken_its_place_is_read(
    store, fake, label, open_store, frame
) -> None:
    label(0)
    backup = fake.backup()
    assert labels(store) == 1
    fake.delete_project(1)
    assert labels(store) == 1
    _, sent = store.rejoin("eve")
    assert sent == N - 1
    assert labels(store) == 1
    fake.restore(backup)
    label(5)
    label(6)
    assert labels(open_store()) == 3
    assert store.send(frame).sent == 0
    assert labels(open_store()) == 3


def test_numbers_of_projects_and_tasks_that_are_given_out_again_are_noticed(fake, open_store, frame) -> None:
    """A backup from before the project: sent again, the same numbers would stand for other comparisons."""
    empty = fake.backup()
    store = open_store()
    store.send(frame)
    labels(store)
    fake.restore(empty)
    assert "is gone" in open_store().count(ROUND, PURPOSE).notices[0]
    with pytest.raises(AnotherDatabase, match=r"was set back .*project 1 is not the one that had this number"):
        open_store().send(frame.sample(frac=1.0, random_state=1))
    _, sent = open_store().rejoin("eve")
    assert sent == N
    fake.annotate(fake.task_of(frame["comparison_id"][3])["id"], [], 1)
    (found,) = open_store().read(ROUND, PURPOSE)[0]
    assert found.comparison_id == frame["comparison_id"][3]


def test_two_answers_of_one_person_stay_two_when_the_server_is_rejoined(store, fake, label) -> None:
    first, second = label(0, 0), label(0, 1)
    statuses(store)
    fake.delete_annotation(first)
    assert labels(store) == 1
    store.rejoin("eve")
    assert labels(store) == 1
    fake.delete_annotation(second)
    newest = {found.annotation_id: found.status for found in store.read(ROUND, PURPOSE)[0]}
    assert list(newest.values()) == ["deleted", "deleted"]


def test_a_database_that_was_left_can_come_back(store, fake, label) -> None:
    label(0)
    assert labels(store) == 1
    backup = fake.backup()
    fake.reset()
    store.rejoin("eve")
    label(1)
    assert labels(store) == 2
    fake.restore(backup)
    label(2)
    with pytest.raises(AnotherDatabase):
        store.count(ROUND, PURPOSE)
    found, _ = store.rejoin("eve")
    assert [project.project for project in found.found] == [1]
    assert labels(store) == 3


def test_deletions_after_a_project_came_back_and_beside_a_poisoned_task(store, fake, label, open_store) -> None:
    numbers = [label(number, by=1) for number in (0, 0, 1, 2, 3, 3, 4)]
    statuses(store)
    backup = fake.backup()
    fake.delete_project(1)
    labels(store)
    store.rejoin("eve")
    statuses(open_store())
    fake.restore(backup)
    statuses(open_store())
    fake.poisoned.add(label(7))
    statuses(open_store())
    for number in numbers[:6]:
        fake.delete_annotation(number)
    statuses(open_store())
    open_store().accept_deletions(ROUND, "eve")
    newest = {found.annotation_id: found.status for found in open_store().ledger.read(ROUND, PURPOSE)[0]}
    assert sorted(newest.values()) == ["deleted"] * 6 + ["submitted"]


def test_a_number_of_a_task_that_another_project_had_is_noticed(store, fake, label, open_store, frame) -> None:
    """A project comes back with tasks whose numbers its replacement's tasks had: about other comparisons."""
    early = fake.backup()
    fake.delete_task(1)
    labels(store)
    store.send(frame)
    late = fake.backup()
    fake.restore(early)
    fake.delete_project(1)
    labels(store)
    store.rejoin("eve")
    fake.restore(late)
    number = fake.annotate(N + 1, [], 1)
    with pytest.raises(AnotherDatabase, match=rf"task {N + 1} was about comparison .* in project 2"):
        open_store().read(ROUND, PURPOSE)
    open_store().rejoin("eve")
    (found,) = open_store().read(ROUND, PURPOSE)[0]
    assert found.comparison_id == frame["comparison_id"][0]
    fake.delete_annotation(number)
    assert statuses(open_store()) == ["submitted", "deleted"]


def test_who_answers_again_after_a_loss_and_takes_it_back_has_no_label(store, fake, label) -> None:
    label(1)
    backup = fake.backup()
    label(0, 0)
    assert labels(store) == 2
    fake.restore(backup)
    with pytest.raises(AnotherDatabase):
        store.count(ROUND, PURPOSE)
    store.rejoin("eve")
    assert labels(store) == 2
    again = label(0, 1)
    assert labels(store) == 2
    fake.delete_annotation(again)
    assert labels(store) == 1
