"""Tasks and pages that somebody has changed on the label server: what is answered is not about what was sent."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_label_studio import FakeLabelStudio, label_studio_in_memory

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.reading.texts import data_digest
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.ledger.tables import LS_TASKS
from rlhf_dagster.records.tables import records

ROUND, PURPOSE, N = "round-0001", "train", 12
SETTINGS = LabelingSettings(kind="pair", overlap=0.0, comparisons_per_round=5000)
OTHER = "cannot be read: its texts are not those that were sent. What was read of it before counts;"


@pytest.fixture
def fake():
    with label_studio_in_memory() as made:
        yield made


@pytest.fixture
def rows(completions) -> list[dict[str, Any]]:
    return records(build_comparisons(completions(N, 2), SETTINGS, ROUND, seed=0))


@pytest.fixture
def store(fake, tmp_path, completions) -> LabelStudioStore:
    """A store whose comparisons are on the server."""
    client = lambda: LabelStudioClient(fake.url, "0" * 40, 5.0)  # noqa: E731
    made = LabelStudioStore(tmp_path / "l.sqlite", fake.url, client=client, settings=SETTINGS, loop_name="texts")
    made.send(build_comparisons(completions(N, 2), SETTINGS, ROUND, seed=0))
    return made


@pytest.fixture
def label(fake, rows) -> Callable[..., int]:
    """``label(n)`` has somebody judge comparison ``n``; the annotation's number."""

    def make(number: int, by: int = 1, task: int | None = None) -> int:
        regions = encode({"choice": 0, "strength": 1.0}, rows[number], SETTINGS)
        return fake.annotate(task or task_of(fake, rows, number)["id"], regions, by)

    return make


def task_of(fake: FakeLabelStudio, rows: list[dict[str, Any]], number: int) -> dict[str, Any]:
    return fake.task_of(rows[number]["comparison_id"])


def write(fake: FakeLabelStudio, task: dict[str, Any], **texts: Any) -> dict[str, Any]:
    """Change a task's data; returns what they were."""
    before = dict(task["data"])
    task["data"] = before | texts
    fake._touch(task["id"])
    return before


def labels(store: LabelStudioStore) -> int:
    return store.count(ROUND, PURPOSE).labels


@pytest.mark.parametrize("sweep", [True, False])
def test_answers_to_other_texts_are_not_recorded_until_the_right_ones_are_back(
    store, fake, label, rows, sweep: bool
) -> None:
    def look() -> int:
        if sweep:
            store.read(ROUND, PURPOSE)
        return labels(store)

    label(0)
    label(1)
    assert look() == 2
    task = task_of(fake, rows, 1)
    before = write(fake, task, a_html=task["data"]["b_html"], b_html=task["data"]["a_html"])
    label(1, by=2)
    label(2)
    assert look() == 3, "what was read before counts, and so does what others answer"
    [said] = store.notices(ROUND, PURPOSE)
    assert said.startswith(f"Task {task['id']} of {ROUND} (comparison {rows[1]['comparison_id']}) {OTHER}")
    label(3)
    assert look() == 4
    assert store.notices(ROUND, PURPOSE) == [said], "it is remembered while others are read"
    write(fake, task, **before)
    assert look() == 5
    assert store.notices(ROUND, PURPOSE) == []


@pytest.mark.parametrize(
    "data",
    [{"prompt_html": "other"}, {"more": "\ud800"}, {"a_html": None}, {"a_html": ["x"] * 99}],
)
def test_whatever_somebody_writes_into_a_task_is_noticed(store, fake, label, rows, data: dict) -> None:
    write(fake, task_of(fake, rows, 0), **data)
    label(0)
    label(1)
    assert labels(store) == 1
    assert OTHER in store.notices(ROUND, PURPOSE)[0]


def test_a_second_task_of_a_comparison_with_other_texts_is_nobody_s(store, fake, label, rows) -> None:
    data = task_of(fake, rows, 0)["data"]
    project = int(store.comparisons(ROUND, PURPOSE)["project"].iloc[0])
    same, other = store.client.import_tasks(project, [{"data": data}, {"data": data | {"prompt_html": "other"}}])
    label(0, by=2, task=other)
    label(0, by=3, task=same)
    assert [found.annotator for found in store.read(ROUND, PURPOSE)[0]] == [
        store.people.names({3: "person-3@example.com"})[3]
    ]
    assert other in fake.database.tasks, "it is left alone"


def test_a_loop_of_an_earlier_release_takes_the_texts_that_it_first_reads(store, fake, label, rows) -> None:
    state = store._state
    state.set_digests(dict.fromkeys(state.all_tasks(), ""))
    label(0)
    assert labels(store) == 1
    assert state.all_tasks()[task_of(fake, rows, 0)["id"]].data_digest == data_digest(task_of(fake, rows, 0)["data"])
    write(fake, task_of(fake, rows, 0), prompt_html="other")
    label(0, by=2)
    assert labels(store) == 1
    assert "data_digest" in LS_TASKS.columns


def test_a_task_that_is_deleted_is_asked_for_no_more(store, fake, rows, label) -> None:
    task = task_of(fake, rows, 0)
    write(fake, task, prompt_html="other")
    label(1)
    assert labels(store) == 1
    fake.delete_task(task["id"])
    assert labels(store) == 1
    assert store.notices(ROUND, PURPOSE) == []


def test_another_page_is_said_while_it_is_there(store, fake, label) -> None:
    label(0)
    assert labels(store) == 1
    [project] = fake.database.projects.values()
    page = project["label_config"]
    project["label_config"] = page.replace("$a_html", "$c_html")
    label(1)
    assert labels(store) == 2
    [said] = store.notices(ROUND, PURPOSE)
    assert said.startswith(
        f"The page of project {project['id']} of Label Studio ({ROUND}, {PURPOSE}) was changed there"
    )
    project["label_config"] = page
    label(2)
    assert labels(store) == 3
    assert store.notices(ROUND, PURPOSE) == []
