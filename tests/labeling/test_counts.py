"""What is new, who asks to stop, and that nothing is parsed again while nothing is new."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from first_ledger import as_version_0_1
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling import counts as counting
from rlhf_dagster.labeling import tally
from rlhf_dagster.labeling.comparisons import build_comparisons
from rlhf_dagster.labeling.dataset import build_preferences
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore, annotation_id
from rlhf_dagster.labeling.parse import count_labels, countable_labels, labels_table, readable_labels
from rlhf_dagster.labeling.store import Annotation, LabelCounts, Submission

ROUND, PURPOSE = "round-0001", "train"
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def test_new_labels_by_hand(sent) -> None:
    store, batch = sent(5)
    a, b, c, d, e = batch["comparison_id"]
    for minute, comparison in enumerate((a, b, c)):
        store.submit(comparison, "ann", {"best": 0}, at=at(minute))
    counts = store.count(ROUND, PURPOSE)
    assert (counts.position, counts.new, counts.oldest_new_at, counts.newest_at) == (3, 3, at(0), at(2))

    trained = counts.position
    counts = store.count(ROUND, PURPOSE, since=trained)
    assert (counts.position, counts.new, counts.oldest_new_at, counts.newest_at) == (3, 0, None, None)
    assert (counts.usable, counts.labels) == (3, 3)

    store.submit(a, "ann", {"best": 1}, at=at(10))  # an edit is new
    store.delete(b, "ann")  # a deletion is not
    store.submit(d, "bob", {"best": 2}, at=at(12))
    store.submit(d, "eve", {"best": 77}, at=at(13))  # unreadable
    store.submit(e, "bob", {"cannot_decide": True}, at=at(14))
    counts = store.count(ROUND, PURPOSE, since=trained)
    assert (counts.usable, counts.position) == (3, 8)
    assert (counts.new, counts.oldest_new_at, counts.newest_at) == (2, at(10), at(12))
    assert store.count(ROUND, PURPOSE, since=4).new == 1
    assert store.count(ROUND, PURPOSE, since=8).new == 0


def test_labels_of_other_rounds_move_the_ledger_and_not_the_round(sent) -> None:
    store, batch = sent(2)
    other = batch.assign(round="round-0002", comparison_id="other/" + batch["comparison_id"])
    store.send(other)
    store.submit(batch["comparison_id"][0], "ann", {"best": 0})
    before = store.count(ROUND, PURPOSE)
    store.submit(other["comparison_id"][0], "ann", {"best": 0})
    assert store.count(ROUND, PURPOSE) == before
    assert store.count("round-0002", PURPOSE).position == 2
    assert store.count("round-0002", PURPOSE, since=before.position).new == 1


def test_the_position_of_the_labels_read_is_where_new_ones_begin(sent) -> None:
    store, batch = sent(3)
    for comparison in batch["comparison_id"][:2]:
        store.submit(comparison, "ann", {"best": 0})
    labels, _ = labels_table(store.read(ROUND, PURPOSE)[0], batch)
    assert labels["position"].tolist() == [row.position for row in sorted_versions(store)]
    store.submit(batch["comparison_id"][2], "ann", {"best": 0})
    assert store.count(ROUND, PURPOSE, since=int(labels["position"].max())).new == 1


def sorted_versions(store: EmbeddedLabelStore) -> list:
    return sorted(store.read(ROUND, PURPOSE)[0], key=lambda version: (version.annotation_id, version.version))


def test_who_asks_to_stop_is_counted_once_and_can_take_it_back(sent) -> None:
    store, batch = sent(6)
    ids = batch["comparison_id"].tolist()
    assert (store.count(ROUND, PURPOSE).stop_requests, store.count(ROUND, PURPOSE).stop_reasons) == (0, [])
    for number, comparison in enumerate(ids[:4]):
        reason = {"reason": f"reason {number}"}
        store.submit(comparison, "ann", {"best": 0, "flags": ["stop"]} | reason)
    store.submit(ids[4], "bob", {"cannot_decide": True, "flags": ["unsafe", "stop"]})
    store.submit(ids[5], "eve", {"best": 0, "flags": ["unsafe"], "reason": "no reason to stop"})
    counts = store.count(ROUND, PURPOSE, since=1000)
    assert (counts.stop_requests, counts.stop_reasons) == (2, ["reason 3", "reason 2", "reason 1"])

    store.submit(ids[4], "bob", {"cannot_decide": True})
    for comparison in ids[1:4]:
        store.skip(comparison, "ann")
    counts = store.count(ROUND, PURPOSE)
    assert (counts.stop_requests, counts.stop_reasons) == (1, ["reason 0"])
    store.delete(ids[0], "ann")
    assert store.count(ROUND, PURPOSE).stop_requests == 0


def test_nothing_is_parsed_again_while_nothing_is_new(sent, monkeypatch) -> None:
    store, batch = sent(4)
    store.submit(batch["comparison_id"][0], "ann", {"best": 0})
    store.submit(batch["comparison_id"][1], "ann", {"best": 0})
    counts = store.count(ROUND, PURPOSE)
    parsed: list[int] = []
    monkeypatch.setattr(counting, "readable_labels", lambda *frames: parsed.append(1) or readable_labels(*frames))
    again = EmbeddedLabelStore(store.path)
    assert again.count(ROUND, PURPOSE) == counts
    assert [again.count(ROUND, PURPOSE, since=position).new for position in range(4)] == [2, 1, 0, 0]
    assert parsed == []
    store.submit(batch["comparison_id"][0], "ann", {"best": 1})
    assert again.count(ROUND, PURPOSE, since=2).new == 1
    assert parsed == [1]


def test_only_comparisons_with_something_new_are_read_again(sent, monkeypatch) -> None:
    store, batch = sent(20)
    ids = batch["comparison_id"].tolist()
    for comparison in ids:
        store.submit(comparison, "ann", {"best": 0})
    store.submit(ids[3], "bob", {"best": 1})
    store.count(ROUND, PURPOSE)
    read: list[int] = []
    monkeypatch.setattr(
        counting, "readable_labels", lambda found, sent: read.append(len(found)) or readable_labels(found, sent)
    )
    store.submit(ids[3], "ann", {"best": 2})
    assert store.count(ROUND, PURPOSE, since=21).new == 1
    store.delete(ids[4], "ann")
    assert store.count(ROUND, PURPOSE).usable == 20
    store.submit_many([Submission(comparison, "eve", {"best": 0}) for comparison in ids[:10]])
    assert store.count(ROUND, PURPOSE).usable == 30
    assert read == [3, 2, 33]  # the last is all of it: so much is new that reading everything is faster


def test_more_comparisons_are_counted(sent, completions) -> None:
    store, batch = sent(4)
    store.submit(batch["comparison_id"][0], "ann", {"best": 0})
    assert store.count(ROUND, PURPOSE).comparisons == 4
    store.send(batch.assign(comparison_id="more/" + batch["comparison_id"]))
    assert store.count(ROUND, PURPOSE).comparisons == 8


def test_another_release_counts_for_itself(sent, monkeypatch) -> None:
    store, batch = sent(2)
    store.submit(batch["comparison_id"][0], "ann", {"best": 0})
    assert store.count(ROUND, PURPOSE).usable == 1
    monkeypatch.setattr(tally, "counts_of", lambda *_: LabelCounts(2, 0, 0, 0, 0, 0))
    assert store.count(ROUND, PURPOSE).usable == 1
    monkeypatch.setattr(counting, "_release", lambda: "another")
    assert store.count(ROUND, PURPOSE).usable == 0


def test_a_ledger_from_before_sizes_were_kept_is_counted(sent) -> None:
    store, batch = sent(3)
    store.send(batch.assign(round="round-0002", comparison_id="other/" + batch["comparison_id"]))
    store.submit(batch["comparison_id"][0], "ann", {"best": 0})
    sizes = [store.size(key, PURPOSE) for key in (ROUND, "round-0002", "round-0003")]
    assert sizes == [(3, 1), (3, 0), (0, 0)]
    as_version_0_1(store.path, sizes=False)
    old = EmbeddedLabelStore(store.path)
    assert [old.size(key, PURPOSE) for key in (ROUND, "round-0002", "round-0003")] == sizes
    old.submit(batch["comparison_id"][1], "ann", {"best": 0})
    assert (old.size(ROUND, PURPOSE), old.count(ROUND, PURPOSE).usable) == ((3, 2), 2)


def test_labels_from_before_positions_were_kept_train_beside_new_ones(sent) -> None:
    store, batch = sent(6)
    for comparison in batch["comparison_id"]:
        store.submit(comparison, "ann", {"best": 0})
    labels, _ = labels_table(store.read(ROUND, PURPOSE)[0], batch)
    mixed = pd.concat([labels.head(3).drop(columns="position"), labels.tail(3)], ignore_index=True)
    frames = [build_preferences(frame, batch, LabelingSettings(), seed=0)[0] for frame in (labels, mixed)]
    pd.testing.assert_frame_equal(*frames)


RESULTS = [{"best": 0}, {"best": 1}, {"best": 99}, {"cannot_decide": True}, {"best": 2, "flags": ["stop"]}]
RESULTS += [{"best": 0, "flags": ["stop"], "reason": reason} for reason in ("it lies", "it is rude")]
SAID = st.sampled_from([*RESULTS, "skipped", "deleted"])
ACTIONS = st.tuples(st.integers(0, 3), st.sampled_from("wxyz"), SAID, st.sampled_from([None, 0, 1, 2]), st.booleans())
"""Comparison, annotator, answer, number of the annotation (None: the annotator's own), whether it is counted then."""


@pytest.mark.parametrize("few", [0.25, 1.0])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=settings.default.max_examples // 4)
@given(actions=st.lists(ACTIONS, max_size=14))
def test_what_is_kept_is_what_counting_all_anew_gives(actions, few, completions, tmp_path_factory, monkeypatch) -> None:
    """Edits, skips and deletions, two annotations of a person, and some that go to another person or comparison."""
    monkeypatch.setattr(counting, "_FEW", few)  # 1: after the first time, all that changed is counted as a change
    store = EmbeddedLabelStore(tmp_path_factory.mktemp("counts") / "labels.sqlite")
    store.send(build_comparisons(completions(4), LabelingSettings(overlap=0.0), ROUND, seed=0))
    batch = store.comparisons(ROUND, PURPOSE)
    for minute, (number, annotator, said, annotation, is_counted) in enumerate(actions):
        comparison = batch["comparison_id"][number]
        status, result = (said, {}) if isinstance(said, str) else ("submitted", said)
        name = annotation_id(comparison, annotator) if annotation is None else f"annotation {annotation}"
        times = {"created_at": at(minute), "updated_at": at(minute)}
        store.append([Annotation(name, comparison, annotator, 1, status, result, None, **times)])
        if is_counted:
            store.count(ROUND, PURPOSE)
    annotations, end = store.read(ROUND, PURPOSE)
    labels = labels_table(annotations, batch)[0]
    countable = countable_labels(labels)
    for since in range(end + 1):
        new = countable[countable["position"] > since]
        counts = store.count(ROUND, PURPOSE, since)
        times = {} if new.empty else {"oldest_new_at": new["updated_at"].min(), "newest_at": new["updated_at"].max()}
        assert counts == replace(count_labels(labels, batch), new=len(new), **times)
