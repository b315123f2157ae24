"""The Label Studio store against the real server: what happens to tasks and annotations behind our back."""

import random
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.send import CHUNK
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.label_studio.transport.errors import LabelStudioTimeout
from rlhf_dagster.labeling.parse import labels_table
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.records.tables import records

ROUND, PURPOSE = "round-0001", "train"
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=5000)
Open = Callable[..., LabelStudioStore]


@pytest.fixture
def open_store(label_studio, tmp_path) -> Open:
    def make(settings: LabelingSettings = SETTINGS, client: Any = None) -> LabelStudioStore:
        path = tmp_path / "l.sqlite"
        opened = client or label_studio.client
        return LabelStudioStore(path, label_studio.url, client=opened, settings=settings, loop_name="store")

    return make


@pytest.fixture
def batch(completions) -> Callable[..., pd.DataFrame]:
    def make(n: int, settings: LabelingSettings = SETTINGS) -> pd.DataFrame:
        return build_comparisons(completions(n, settings.responses), settings, ROUND, seed=0)

    return make


def project_of(store: LabelStudioStore) -> int:
    return int(store.comparisons(ROUND, PURPOSE)["project"].iloc[0])


def on_server(client: LabelStudioClient, project: int) -> list[dict[str, Any]]:
    """All tasks of a project."""
    found: list[dict[str, Any]] = []
    while page := client.task_page(project, found[-1]["id"] if found else 0):
        found += page
    return found


def held(client: LabelStudioClient, project: int) -> list[str]:
    return sorted(task["data"]["comparison"] for task in on_server(client, project))


def test_tasks_go_out_in_order_and_show_nothing_of_the_policies(open_store, batch, label_studio) -> None:
    store, frame = open_store(), batch(30)
    frame["policy_ids"] = [["champion-7", "challenger-8"]] * len(frame)
    store.send(frame)
    tasks = on_server(label_studio.client(), project_of(store))
    assert [task["data"]["comparison"] for task in tasks] == frame["comparison_id"].tolist()
    for task, row in zip(tasks, records(frame), strict=True):
        secrets = [*row["policy_ids"], *row["completion_ids"]]
        assert not [secret for secret in secrets if secret in str(task)]


def test_overlap_is_set_on_the_tasks_that_want_it(open_store, completions, label_studio) -> None:
    settings = SETTINGS.changed(overlap=0.3, overlap_labels=3)
    frame = build_comparisons(completions(10, 2), settings, ROUND, seed=0)
    store = open_store(settings)
    store.send(frame)
    wanted = dict(zip(frame["comparison_id"], frame["labels_wanted"], strict=True))
    client = label_studio.client()
    for task in on_server(client, project_of(store)):
        assert client._json("GET", f"api/tasks/{task['id']}/")["overlap"] == wanted[task["data"]["comparison"]]


def test_tasks_deleted_in_label_studio_are_sent_again_and_their_labels_are_deleted(
    open_store, batch, label_studio
) -> None:
    store, frame, client = open_store(), batch(12), label_studio.client()
    store.send(frame)
    first = frame["comparison_id"][0]
    store.submit_many([Submission(first, "ann", {"choice": 0, "strength": 1.0})])
    tasks = store.comparisons(ROUND, PURPOSE).head(5)["task_id"].astype(int).tolist()
    client.delete_tasks(project_of(store), tasks)
    assert store.count(ROUND, PURPOSE).labels == 0
    assert [version.status for version in store.read(ROUND, PURPOSE)[0]] == ["submitted", "deleted"]
    assert store.send(frame).sent == 5
    assert held(client, project_of(store)) == sorted(frame["comparison_id"])


def test_duplicates_that_appear_late_are_deleted_unless_somebody_labelled_them(open_store, batch, label_studio) -> None:
    store, frame, client = open_store(), batch(6), label_studio.client()
    store.send(frame)
    project = project_of(store)
    tasks = on_server(client, project)
    late = client.import_tasks(project, [{"data": task["data"]} for task in tasks])
    row = records(frame)[0]
    client.annotate(late[0], encode({"choice": 1, "strength": 0.5}, row, SETTINGS), 3.0)
    annotations, _ = store.read(ROUND, PURPOSE)
    assert [annotation.comparison_id for annotation in annotations] == [row["comparison_id"]]
    assert held(client, project) == sorted(frame["comparison_id"])
    assert late[0] in {task["id"] for task in on_server(client, project)}


def test_tasks_that_somebody_made_by_hand_are_left_alone(open_store, batch, label_studio) -> None:
    store, frame, client = open_store(), batch(3), label_studio.client()
    store.send(frame)
    project = project_of(store)
    data = on_server(client, project)[0]["data"]
    foreign = client.import_tasks(project, [{"data": data | {"comparison": odd}} for odd in ("mine", ["a"], None, 7)])
    client.annotate(foreign[0], [], 1.0)
    assert store.read(ROUND, PURPOSE)[0] == []
    assert store.send(frame).sent == 0
    assert {task["id"] for task in on_server(client, project)} >= set(foreign)


def test_after_a_timeout_everything_is_there_once(open_store, batch, label_studio) -> None:
    """The client gives up; the server does what it was asked all the same."""

    class Impatient(LabelStudioClient):
        gave_up = 0

        def import_tasks(self, project, tasks):
            ids = super().import_tasks(project, tasks)
            if Impatient.gave_up < 2:
                Impatient.gave_up += 1
                raise LabelStudioTimeout("no answer")
            return ids

    store = open_store(client=lambda: Impatient(label_studio.url, label_studio.token))
    frame = batch(CHUNK + 20)
    assert store.send(frame).sent == CHUNK + 20
    assert Impatient.gave_up == 2
    assert held(label_studio.client(), project_of(store)) == sorted(frame["comparison_id"])


def _send(path: Path, url: str, token: str, frame: pd.DataFrame) -> None:
    client = lambda: LabelStudioClient(url, token)  # noqa: E731
    LabelStudioStore(path, url, client=client, settings=SETTINGS, loop_name="store").send(frame)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in (1, 2, 3))])
def test_a_sender_killed_anywhere_can_be_run_again(open_store, batch, label_studio, tmp_path, seed) -> None:
    frame, rng = batch(1500), random.Random(seed)
    for _ in range(3):
        arguments = (tmp_path / "l.sqlite", label_studio.url, label_studio.token, frame)
        sender = get_context("fork").Process(target=_send, args=arguments)
        sender.start()
        time.sleep(rng.uniform(0.05, 0.8))
        sender.kill()
        sender.join()
        assert sender.exitcode in (0, -signal.SIGKILL)
    store = open_store()
    store.send(frame)
    store.read(ROUND, PURPOSE)
    assert held(label_studio.client(), project_of(store)) == sorted(frame["comparison_id"])
    assert store.comparisons(ROUND, PURPOSE)["project"].nunique() == 1


def test_changed_pages_make_a_new_project_and_old_labels_stay_readable(open_store, batch) -> None:
    frame = batch(8)
    store = open_store()
    store.send(frame.head(4))
    store.submit_many([Submission(frame["comparison_id"][0], "ann", {"choice": 1, "strength": 1.0})])
    plain = open_store(SETTINGS.changed(strength=False))
    assert plain.send(frame).sent == 4
    plain.submit_many([Submission(frame["comparison_id"][7], "ann", {"choice": 0})])
    assert plain.comparisons(ROUND, PURPOSE)["project"].nunique() == 2
    found = {annotation.comparison_id: annotation.result for annotation in plain.read(ROUND, PURPOSE)[0]}
    assert found == {
        frame["comparison_id"][0]: {"choice": 1, "strength": 1.0},
        frame["comparison_id"][7]: {"choice": 0},
    }


def test_counting_is_one_request_and_no_parsing_while_nothing_is_new(
    open_store, batch, label_studio, monkeypatch
) -> None:
    asked, parsed = [], []

    class Watched(LabelStudioClient):
        def _request(self, method, path, *rest):
            asked.append(path)
            return super()._request(method, path, *rest)

    store = open_store(client=lambda: Watched(label_studio.url, label_studio.token))
    frame = batch(4)
    store.send(frame)
    for number, comparison in enumerate(frame["comparison_id"][:3]):
        store.submit_many([Submission(comparison, f"ann-{number}", {"choice": 0, "strength": 1.0})])
    counts = store.count(ROUND, PURPOSE)
    asked.clear()
    monkeypatch.setattr(store, "_translated", lambda *_: parsed.append(1) or ([], 0))
    assert store.count(ROUND, PURPOSE) == counts
    assert [store.count(ROUND, PURPOSE, since).new for since in range(5)] == [3, 2, 1, 0, 0]
    assert (asked, parsed) == (["api/tasks/"] * 6, [])


class OtherDatabase(LabelStudioClient):
    """The same server under the name of another database."""

    def organizations(self):
        return [found | {"created_at": "2020-01-01T00:00:00.000001Z"} for found in super().organizations()]


def test_another_address_is_refused_with_both(open_store, batch, tmp_path, label_studio) -> None:
    open_store().send(batch(2))
    moved = LabelStudioStore(
        tmp_path / "l.sqlite",
        "http://elsewhere:8080",
        client=lambda: OtherDatabase(label_studio.url, label_studio.token),
        settings=SETTINGS,
        loop_name="store",
    )
    with pytest.raises(
        UserError, match=rf"sent to Label Studio at {label_studio.url}, and label_store.url is http://e"
    ):
        moved.read(ROUND, PURPOSE)


def test_a_server_that_has_moved_is_recognised(open_store, batch, tmp_path, label_studio) -> None:
    store, frame = open_store(), batch(2)
    store.send(frame)
    store.submit_many([Submission(frame["comparison_id"][0], "ann", {"choice": "tie"})])
    elsewhere = label_studio.url.replace("127.0.0.1", "localhost")
    moved = LabelStudioStore(
        tmp_path / "l.sqlite", elsewhere, client=label_studio.client, settings=SETTINGS, loop_name="store"
    )
    assert moved.count(ROUND, PURPOSE).usable == 1
    assert moved.send(frame).sent == 0
    assert moved.addresses(ROUND, PURPOSE) == [f"{elsewhere}/projects/{project_of(moved)}/data"]


def test_annotators_are_users_of_their_own_and_pseudonyms_here(open_store, batch, label_studio, tmp_path) -> None:
    store, frame = open_store(), batch(4)
    store.send(frame)
    store.submit_many(
        [Submission(name, who, {"choice": "tie"}, 2.5) for name in frame["comparison_id"] for who in ("ann-01", "bob")]
    )
    client = label_studio.client()
    client.annotate(int(store.comparisons(ROUND, PURPOSE)["task_id"][0]), [], 1.0)
    names = {annotation.annotator for annotation in store.read(ROUND, PURPOSE)[0]}
    assert {"ann-01", "bob"} < names
    (person,) = names - {"ann-01", "bob"}
    assert label_studio.email not in person
    key = tmp_path / "annotators.json"
    assert label_studio.email in key.read_text()
    assert key.stat().st_mode & 0o777 == 0o600
    makers = {note["completed_by"] for task in on_server(client, project_of(store)) for note in task["annotations"]}
    assert len(makers) == 3


def test_what_cannot_be_read_is_quarantined_and_the_rest_counts(open_store, batch, label_studio) -> None:
    store, frame, client = open_store(), batch(4), label_studio.client()
    store.send(frame)
    task = dict(zip(frame["comparison_id"], store.comparisons(ROUND, PURPOSE)["task_id"].astype(int), strict=True))
    good, empty, unknown, twice = (task[name] for name in frame["comparison_id"])
    region = {"from_name": "preference", "to_name": "prompt", "type": "choices", "value": {"choices": ["A2"]}}
    client.annotate(good, [region], 1.0)
    client.annotate(empty, [], 1.0)
    client.annotate(unknown, [region | {"value": {"choices": ["much better"]}}], 1.0)
    client.annotate(twice, [region, region], 1.0)
    labels, quarantine = labels_table(store.read(ROUND, PURPOSE)[0], store.comparisons(ROUND, PURPOSE))
    assert labels["comparison_id"].tolist() == [frame["comparison_id"][0]]
    assert sorted(quarantine["problem"]) == sorted(
        [
            "The annotation is empty.",
            "`preference` has no choice 'much better' here.",
            "The control `preference` has more than one answer.",
        ]
    )


def test_our_table_is_the_servers_truth_after_anything(open_store, batch, label_studio) -> None:
    """Annotations made, edited, deleted, skipped, un-skipped and given to others, at random, while we read."""
    store, frame, client = open_store(), batch(12), label_studio.client()
    store.send(frame)
    rows = {row["comparison_id"]: row for row in records(frame)}
    store.submit_many([Submission(name, "ann", {"choice": 0, "strength": 1.0}) for name in rows])
    project, rng = project_of(store), random.Random(5)
    people = [user["id"] for user in client.users()]
    seen: set[tuple[int, str]] = set()
    for step in range(60):
        _something(client, project, rows, people, rng)
        if step % 12 == 0:
            store.read(ROUND, PURPOSE, 0 if step % 24 else None)
            seen |= _truth(client, project)
    annotations, _ = store.read(ROUND, PURPOSE)
    newest: dict[str, Any] = {annotation.annotation_id: annotation for annotation in annotations}
    ours = sorted((a.comparison_id, a.status, str(a.result)) for a in newest.values() if a.status != "deleted")
    theirs = sorted(
        (
            task["data"]["comparison"],
            "skipped" if note["was_cancelled"] else "submitted",
            str({} if note["was_cancelled"] else store_form(note, rows[task["data"]["comparison"]])),
        )
        for task in on_server(client, project)
        for note in task["annotations"]
    )
    assert ours == theirs
    versions = {(a.comparison_id, a.status) for a in annotations}
    assert {(comparison, status) for comparison, status in versions} >= {(name, "submitted") for name in rows}
    assert len(annotations) > len(seen) / 2
    assert {"submitted", "skipped", "deleted"} <= {a.status for a in annotations}


def store_form(note: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    from rlhf_dagster.labeling.label_studio.results import decode

    return decode(note["result"], row, SETTINGS)


def _truth(client: LabelStudioClient, project: int) -> set[tuple[int, str]]:
    return {(note["id"], note["updated_at"]) for task in on_server(client, project) for note in task["annotations"]}


def _something(client: LabelStudioClient, project: int, rows: dict, people: list[int], rng: random.Random) -> None:
    task = rng.choice(on_server(client, project))
    row = rows[task["data"]["comparison"]]
    regions = encode({"choice": rng.choice([0, 1, "tie"]), "strength": rng.choice([0.5, 1.0])}, row, SETTINGS)
    if not task["annotations"]:
        client.annotate(task["id"], regions, 1.0, was_cancelled=rng.random() < 0.3)
        return
    note = rng.choice(task["annotations"])
    action = rng.choice(["edit", "delete", "skip", "unskip", "repoint"])
    if action == "delete":
        client.delete_annotation(note["id"])
    elif action == "repoint":
        client.update_annotation(note["id"], completed_by=rng.choice(people))
    else:
        cancelled = action == "skip"
        client.update_annotation(note["id"], result=[] if cancelled else regions, was_cancelled=cancelled)


def test_a_machines_labels_are_in_the_ledger_alone_and_survive_every_look(open_store, batch, label_studio) -> None:
    store, frame, client = open_store(), batch(4), label_studio.client()
    store.send(frame)
    first, second = frame["comparison_id"][:2]
    store.ledger.submit_many([Submission(first, "machine:judge", {"choice": 0})])
    store.submit_many([Submission(first, "ann", {"choice": 1}), Submission(second, "ann", {"choice": 0})])
    for _ in range(2):
        read, _ = store.read(ROUND, PURPOSE)
        assert sorted((one.annotator, one.result["choice"], one.status) for one in read) == [
            ("ann", 0, "submitted"),
            ("ann", 1, "submitted"),
            ("machine:judge", 0, "submitted"),
        ]
    counts = store.count(ROUND, PURPOSE)
    assert (counts.labels, counts.usable, counts.machine) == (2, 2, 1)
    assert sum(task["total_annotations"] for task in on_server(client, project_of(store))) == 2
    assert store.send(frame).sent == 0
