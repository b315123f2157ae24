"""What every label store must do. A new store joins ``STORES``, and ``SERVERS`` if it needs one."""

import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from postgres import PostgresServer

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.store import LabelStore, SendResult, Submission
from rlhf_dagster.records.ids import content_hash

ROUND, PURPOSE = "round-0001", "train"
SETTINGS = LabelingSettings(overlap=0.5, overlap_labels=2)
Open = Callable[[Path], LabelStore]


def open_embedded(folder: Path) -> LabelStore:
    return EmbeddedLabelStore(folder / "labels.sqlite")


@pytest.fixture(
    params=[
        "embedded",
        "embedded-postgres",
        "label_studio",
        pytest.param("label_studio-postgres", marks=pytest.mark.long),
    ]
)
def open_store(request) -> Open:
    """Opens a store whose files are in a folder; two on one folder are one store."""
    kind, _, database = request.param.partition("-")
    if request.param == "embedded":
        return open_embedded
    place = _in_postgres(request.getfixturevalue("postgres")) if database else lambda folder: folder / "labels.sqlite"
    if kind == "embedded":
        return lambda folder: EmbeddedLabelStore(place(folder))
    server = request.getfixturevalue("label_studio")
    return lambda folder: LabelStudioStore(
        place(folder), server.url, client=server.client, settings=SETTINGS, loop_name="contract", folder=folder
    )


def _in_postgres(server: PostgresServer) -> Callable[[Path], str]:
    """A schema for each folder."""
    return lambda folder: server.address(f"c{content_hash(str(folder))}")


@pytest.fixture
def any_store(open_store, tmp_path) -> LabelStore:
    return open_store(tmp_path)


@pytest.fixture
def has_own_clock(any_store) -> bool:
    return isinstance(any_store, LabelStudioStore)


@pytest.fixture
def batch(completions):
    return build_comparisons(completions(6), SETTINGS, ROUND, seed=0)


def test_sending_again_adds_nothing(any_store, batch) -> None:
    assert any_store.send(batch.head(4)) == SendResult(sent=4, already_there=0)
    assert any_store.send(batch) == SendResult(sent=2, already_there=4)
    assert any_store.send(batch) == SendResult(sent=0, already_there=6)
    assert any_store.count(ROUND, PURPOSE).comparisons == 6


def test_comparisons_come_back_as_sent_with_the_stores_ids(any_store, batch) -> None:
    any_store.send(batch)
    back = any_store.comparisons(ROUND, PURPOSE)
    assert back["project"].nunique() == 1
    assert back["project"].iloc[0]
    assert back["task_id"].is_unique
    for sent, held in zip(batch.to_dict("records"), back.to_dict("records"), strict=True):
        for name in set(sent) - {"project", "task_id"}:
            assert list(sent[name]) == list(held[name]) if hasattr(sent[name], "__len__") else sent[name] == held[name]


def test_rounds_and_purposes_are_apart(any_store, batch) -> None:
    any_store.send(batch)
    assert any_store.comparisons("round-0002", PURPOSE).empty
    assert any_store.read(ROUND, "evaluation") == ([], 0)
    assert any_store.count("round-0002", PURPOSE).comparisons == 0


def test_every_version_is_read_and_reading_goes_on_from_a_position(any_store, has_own_clock, batch) -> None:
    any_store.send(batch)
    first, second = batch["comparison_id"][:2]
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    any_store.submit_many([Submission(first, "ann", {"best": 0}, 3.5, at)])
    versions, position = any_store.read(ROUND, PURPOSE)
    assert [(v.comparison_id, v.annotator, v.version, v.status, v.result, v.seconds) for v in versions] == [
        (first, "ann", 1, "submitted", {"best": 0}, 3.5)
    ]
    if has_own_clock:
        at = versions[0].created_at
        assert abs(datetime.now(UTC) - at) < timedelta(hours=1)
    assert (versions[0].created_at, versions[0].updated_at) == (at, pytest.approx(at, abs=timedelta(seconds=1)))
    assert any_store.read(ROUND, PURPOSE, position) == ([], position)

    any_store.submit_many([Submission(first, "ann", {"best": 1}), Submission(second, "ann", status="skipped")])
    later, end = any_store.read(ROUND, PURPOSE, position)
    assert end > position
    assert [(v.comparison_id, v.version, v.status) for v in later] == [(first, 2, "submitted"), (second, 1, "skipped")]
    assert later[0].annotation_id == versions[0].annotation_id
    assert later[0].created_at == at
    assert any_store.read(ROUND, PURPOSE)[0] == versions + later


def test_the_same_answer_again_is_no_new_version(any_store, batch) -> None:
    any_store.send(batch)
    answer = Submission(batch["comparison_id"][0], "ann", {"best": 2, "reason": "kinder"}, 4.0)
    ids = {any_store.submit_many([answer])[0] for _ in range(3)}
    assert len(ids) == 1
    assert len(any_store.read(ROUND, PURPOSE)[0]) == 1


def test_an_answer_to_an_unknown_comparison_is_refused_and_leaves_nothing(any_store, batch) -> None:
    any_store.send(batch)
    known = Submission(batch["comparison_id"][0], "ann", {"best": 2})
    with pytest.raises(UserError, match="no comparison nothing"):
        any_store.submit_many([known, Submission("nothing", "ann", {"best": 2})])
    assert any_store.read(ROUND, PURPOSE)[0] == []


def test_counts_by_hand(any_store, batch) -> None:
    any_store.send(batch)
    twice = list(batch.loc[batch["labels_wanted"] == 2, "comparison_id"])
    once = list(batch.loc[batch["labels_wanted"] == 1, "comparison_id"])
    any_store.submit_many(
        [
            Submission(twice[0], "a", {"best": 0}),
            Submission(twice[0], "b", {"cannot_decide": True}),
            Submission(twice[1], "a", {"best": 0}),
            Submission(once[0], "a", {"best": 77}),  # unreadable, so it is no label
            Submission(once[1], "a", {"best": 1}),
            Submission(once[2], "a", {"best": 1}),
            Submission(once[2], "a", status="skipped"),
        ]
    )
    counts = any_store.count(ROUND, PURPOSE)
    assert (counts.comparisons, counts.labelled, counts.labels, counts.usable) == (6, 3, 4, 3)
    assert (counts.skipped, counts.complete) == (1, 2)


def test_who_takes_an_answer_back_and_gives_another_is_counted_once(any_store, batch) -> None:
    any_store.send(batch)
    comparison = batch["comparison_id"][0]
    any_store.submit_many([Submission(comparison, "ann", {"best": 1})])
    any_store.submit_many([Submission(comparison, "ann", status="deleted")])
    assert any_store.count(ROUND, PURPOSE).labels == 0
    any_store.submit_many([Submission(comparison, "ann", {"best": 2})])
    counts = any_store.count(ROUND, PURPOSE)
    assert (counts.labels, counts.usable) == (1, 1)
    versions, _ = any_store.read(ROUND, PURPOSE)
    assert [version.status for version in versions] == ["submitted", "deleted", "submitted"]


def test_what_is_new_since_a_position(any_store, batch) -> None:
    any_store.send(batch)
    ids = batch["comparison_id"].tolist()
    any_store.submit_many([Submission(comparison, "ann", {"best": 0}) for comparison in ids[:3]])
    before = any_store.count(ROUND, PURPOSE)
    assert (before.new, before.usable) == (3, 3)
    assert before.position == any_store.read(ROUND, PURPOSE)[1]
    assert any_store.count(ROUND, PURPOSE, since=before.position).new == 0

    any_store.submit_many(
        [
            Submission(ids[0], "ann", {"best": 1}),
            Submission(ids[1], "ann", status="deleted"),
            Submission(ids[3], "bob", {"best": 2}),
        ]
    )
    after = any_store.count(ROUND, PURPOSE, since=before.position)
    assert (after.new, after.usable) == (2, 3)
    versions, end = any_store.read(ROUND, PURPOSE)
    assert (after.position, max(version.position for version in versions)) == (end, end)
    made = {version.comparison_id: version.updated_at for version in versions if version.status == "submitted"}
    times = sorted([made[ids[0]], made[ids[3]]])
    assert [after.oldest_new_at, after.newest_at] == times


def test_who_asks_to_stop_the_training(any_store, batch) -> None:
    any_store.send(batch)
    first, second = batch["comparison_id"][:2]
    any_store.submit_many(
        [
            Submission(first, "ann", {"best": 0, "flags": ["stop"], "reason": "all texts are in Latin"}),
            Submission(second, "ann", {"best": 0, "flags": ["stop"], "reason": "all texts are in Latin"}),
            Submission(second, "bob", {"cannot_decide": True, "flags": ["bad_prompt", "stop"]}),
        ]
    )
    counts = any_store.count(ROUND, PURPOSE)
    assert (counts.stop_requests, counts.stop_reasons) == (2, ["all texts are in Latin"])
    any_store.submit_many([Submission(second, "bob", {"cannot_decide": True})])
    assert any_store.count(ROUND, PURPOSE).stop_requests == 1


def _send_at_once(folder: Path, open_store: Open, batch, barrier, results) -> None:
    barrier.wait()
    try:
        results.put(open_store(folder).send(batch).sent)
    except Exception as error:
        results.put(repr(error))


def test_processes_that_open_a_new_store_and_send_at_once_send_everything_once(tmp_path, batch, open_store) -> None:
    context = multiprocessing.get_context("fork")
    for attempt in range(10 if open_store is open_embedded else 3):
        folder = tmp_path / str(attempt)
        barrier, results = context.Barrier(4), context.Queue()
        arguments = (folder, open_store, batch, barrier, results)
        workers = [context.Process(target=_send_at_once, args=arguments) for _ in range(4)]
        for worker in workers:
            worker.start()
        sent = [results.get() for _ in workers]
        for worker in workers:
            worker.join()
        assert sorted(sent, key=str) == [0, 0, 0, len(batch)]
        assert len(open_store(folder).comparisons(ROUND, PURPOSE)) == len(batch)


def test_annotations_one_after_the_other_are_those_that_are_read_at_once(any_store, batch) -> None:
    any_store.send(batch)
    answers = [Submission(one, name, {"best": 1}) for name in "ab" for one in batch["comparison_id"]]
    any_store.submit_many([*answers, Submission(batch["comparison_id"][0], "a", {"cannot_decide": True})])
    found = list(any_store.annotations(ROUND, PURPOSE))
    assert found == any_store.read(ROUND, PURPOSE)[0]
    assert len(found) == 13
