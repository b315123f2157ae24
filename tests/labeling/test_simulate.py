from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import pytest

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.comparisons import build_ab_comparisons
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.label_studio.results import decode, encode
from rlhf_dagster.labeling.parse import labels_table, usable_labels
from rlhf_dagster.labeling.simulate import assignment, simulate_annotators
from rlhf_dagster.tasks.base import Judgment
from rlhf_dagster.tasks.known import get_task

ROUND, PURPOSE = "round-0001", "train"
NAMES = [f"ann-{number:02d}" for number in range(1, 6)]


def answers(store) -> set:
    return {(a.comparison_id, a.annotator, str(a.result), a.version) for a in store.read(ROUND, PURPOSE)[0]}


@pytest.mark.parametrize("kind", ["best_of_k", "pair", "ranking", "rating"])
def test_labels_say_what_the_annotator_meant_whatever_the_order_shown(sent, annotator, kind: str) -> None:
    store, batch = sent(20, kind=kind)
    simulate_annotators(store, [annotator(name) for name in NAMES], ROUND, PURPOSE, seed=0)
    labels, quarantine = labels_table(store.read(ROUND, PURPOSE)[0], batch)
    assert quarantine.empty
    rows = usable_labels(labels).merge(batch, on="comparison_id")
    assert len(rows) == 20
    for row in rows.to_dict("records"):
        assert row["responses"][list(row["ranks"]).index(1)] == max(row["responses"])
    assert rows["chosen_position"].nunique() > 1


def test_every_comparison_gets_the_labels_it_wants_from_different_people(sent, annotator) -> None:
    store, _batch = sent(40, overlap=0.5, labels=3)
    summary = simulate_annotators(store, [annotator(name) for name in NAMES], ROUND, PURPOSE, seed=0)
    assert (summary.comparisons, summary.made, summary.annotators) == (40, 20 + 60, 5)
    counts = store.count(ROUND, PURPOSE)
    assert (counts.complete, counts.labels) == (40, 80)
    work = Counter(annotation.annotator for annotation in store.read(ROUND, PURPOSE)[0])
    assert max(work.values()) - min(work.values()) <= 1


def test_work_that_was_stopped_ends_the_same(sent, annotator, monkeypatch, tmp_path) -> None:
    store, batch = sent(30, overlap=0.3)
    people = [annotator(name) for name in NAMES]
    monkeypatch.setattr("rlhf_dagster.labeling.simulate.BATCH", 7)

    def stop(step: int, total: int) -> None:
        if step >= 21:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_annotators(store, people, ROUND, PURPOSE, seed=0, progress=stop)
    assert len(answers(store)) == 21
    rest = simulate_annotators(store, people, ROUND, PURPOSE, seed=0)
    assert (rest.made, rest.already_there) == (48 - 21, 21)
    assert simulate_annotators(store, people, ROUND, PURPOSE, seed=0).made == 0

    undisturbed = EmbeddedLabelStore(tmp_path / "undisturbed.sqlite")
    undisturbed.send(batch)
    simulate_annotators(undisturbed, people, ROUND, PURPOSE, seed=0)
    assert answers(store) == answers(undisturbed)


def test_the_same_seed_asks_the_same_people(sent, annotator) -> None:
    _store, batch = sent(30)
    wanted = dict.fromkeys(batch["comparison_id"], 1)
    first = {key: ranking[0] for key, ranking in assignment(wanted, NAMES, seed=1)}
    reverse = dict(reversed(wanted.items()))
    assert {key: ranking[0] for key, ranking in assignment(reverse, NAMES[::-1], seed=1)} == first
    assert {key: ranking[0] for key, ranking in assignment(wanted, NAMES, seed=2)} != first


def test_repeats_go_to_those_who_judged_the_first_time_and_change_nothing_else() -> None:
    wanted = {f"c{number}": 1 + number % 3 for number in range(30)}
    repeats = {f"r{number}": f"c{number}" for number in range(10)} | {"far": "a comparison of another round"}
    plan = dict(assignment(wanted, NAMES, seed=0))
    both = dict(assignment(wanted | dict.fromkeys(repeats, 1), NAMES, seed=0, repeats=repeats))
    near = {repeat: first for repeat, first in repeats.items() if first in wanted}
    assert {repeat: both[repeat] for repeat in near} == {repeat: both[first] for repeat, first in near.items()}
    assert set(both) == set(wanted) | set(repeats)
    without_far = dict(assignment(wanted | dict.fromkeys(near, 1), NAMES, seed=0, repeats=near))
    assert {key: without_far[key] for key in wanted} == plan


def test_a_repeat_in_a_batch_is_judged_by_the_same_person(store, sent, annotator) -> None:
    _, batch = sent(12)
    again = batch.assign(
        comparison_id="again/" + batch["comparison_id"], repeat_of=batch["comparison_id"], role="repeat"
    )
    store.send(again)
    simulate_annotators(store, [annotator(name) for name in NAMES], ROUND, PURPOSE, seed=0)
    who = {comparison: name for comparison, name, *_ in answers(store)}
    assert len(who) == 24
    assert all(who[f"again/{comparison}"] == who[comparison] for comparison in batch["comparison_id"])


@pytest.mark.parametrize(("asked", "strength"), [(True, {1.0}), (False, set())])
def test_strength_is_given_where_it_is_asked(sent, annotator, asked: bool, strength: set) -> None:
    store, _ = sent(5, kind="pair")
    settings = LabelingSettings(kind="pair", strength=asked)
    simulate_annotators(store, [annotator(NAMES[0])], ROUND, PURPOSE, seed=0, settings=settings)
    results = [annotation.result for annotation in store.read(ROUND, PURPOSE)[0]]
    assert {result["strength"] for result in results if "strength" in result} == strength


def test_all_axes_asked_are_rated(sent, annotator) -> None:
    store, _ = sent(1, kind="rating")
    settings = LabelingSettings(kind="rating", rating_axes=["helpful", "overall"])
    simulate_annotators(store, [annotator(NAMES[0])], ROUND, PURPOSE, seed=0, settings=settings)
    ratings = store.read(ROUND, PURPOSE)[0][0].result["ratings"]
    assert sorted(ratings["helpful"]) == [3, 3, 3, 7]
    assert ratings["overall"] == ratings["helpful"]


@dataclass(frozen=True)
class OnAxes:
    """Prefers the response whose text sorts last, finds the other more honest, and tells no other axis apart."""

    name: str

    def judge(self, prompt: str, responses: Sequence[str], kind: str, key: str) -> Judgment:
        ranks = [1 if text == max(responses) else 2 for text in responses]
        return Judgment(ranks, 10.0, axes={"honest": [3 - rank for rank in ranks]})


def test_an_ab_judgment_says_which_is_better_on_each_axis_asked(store, completions) -> None:
    rows = pd.concat([completions(4, 1, policy) for policy in ("policy-a", "policy-b")])
    store.send(build_ab_comparisons(rows, [("policy-a", "policy-b")], 4, ROUND, 0))
    settings = LabelingSettings(evaluation_axes=["honest", "helpful"])
    simulate_annotators(store, [OnAxes(NAMES[0])], ROUND, "evaluation", seed=0, settings=settings)
    results = [annotation.result for annotation in store.read(ROUND, "evaluation")[0]]
    assert len(results) == 4
    assert all(result["axes"] == {"honest": 1 - result["choice"]} for result in results)
    labels, _ = labels_table(store.read(ROUND, "evaluation")[0], store.comparisons(ROUND, "evaluation"))
    assert labels["axes"].str.contains("honest").all()


def test_axes_that_nobody_asks_for_are_not_given(sent) -> None:
    store, _ = sent(3, kind="pair")
    settings = LabelingSettings(kind="pair", evaluation_axes=["honest"])
    simulate_annotators(store, [OnAxes(NAMES[0])], ROUND, PURPOSE, seed=0, settings=settings)
    assert all("axes" not in annotation.result for annotation in store.read(ROUND, PURPOSE)[0])


@pytest.mark.parametrize("kind", ["pair", "best_of_k", "ranking", "rating"])
def test_what_the_tasks_annotators_say_survives_label_studios_form(sent, kind: str) -> None:
    store, batch = sent(30, kind=kind)
    settings = LabelingSettings(kind=kind)
    simulate_annotators(store, get_task("sentiment").annotators(0), ROUND, PURPOSE, seed=0, settings=settings)
    rows = {row["comparison_id"]: row for row in batch.to_dict("records")}
    annotations, _ = store.read(ROUND, PURPOSE)
    assert len(annotations) == 30
    for annotation in annotations:
        comparison = rows[annotation.comparison_id]
        assert decode(encode(annotation.result, comparison, settings), comparison, settings) == annotation.result


def test_a_skip_is_made_up_for_by_somebody_else_and_a_persons_label_counts(sent, annotator) -> None:
    store, batch = sent(2)
    first, second = batch["comparison_id"]
    store.submit(first, "a person", {"best": 0})
    store.skip(second, "ann-01")
    simulate_annotators(store, [annotator("ann-01"), annotator("ann-02")], ROUND, PURPOSE, seed=0)
    assert {(key, who) for key, who, *_ in answers(store)} == {
        (first, "a person"),
        (second, "ann-01"),
        (second, "ann-02"),
    }


def test_nobody_to_ask_is_one_sentence(sent) -> None:
    store, _ = sent(1)
    with pytest.raises(UserError, match="no simulated annotators"):
        simulate_annotators(store, [], ROUND, PURPOSE, seed=0)


@pytest.mark.parametrize(("ranks", "part"), [([1, 2], "4 responses need 4 ranks"), ([2, 2, 2, 2], "start at 1")])
def test_a_wrong_judgment_names_the_annotator(sent, ranks: list[int], part: str) -> None:
    class Wrong:
        name = "ann-wrong"

        def judge(self, prompt, responses, kind, key) -> Judgment:
            return Judgment(ranks, 1.0)

    store, _ = sent(1)
    with pytest.raises(UserError, match=f"ann-wrong.*{part}"):
        simulate_annotators(store, [Wrong()], ROUND, PURPOSE, seed=0)
    assert answers(store) == set()
