"""A judge's model as annotator: asked over HTTP, marked as a machine, never counted among people."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fake_server import Answer, Asked
from judge_server import QUICK, judging, messages_in, says, texts_in
from people import pseudonym

from rlhf_dagster.config.judging.judge import MachineAnnotator
from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.judge import asking
from rlhf_dagster.judge.asking import Judge
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.machine import MachineWork, is_judged, judge_round, without_people
from rlhf_dagster.labeling.parse import labels_table, usable_labels
from rlhf_dagster.labeling.simulate import find_work
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.records.machines import by_people, is_machine
from rlhf_dagster.storage.local import LocalStore

ROUND, MACHINE = "round-0001", MachineAnnotator(model="judge-1", service=QUICK)
Sent = Callable[..., tuple[EmbeddedLabelStore, pd.DataFrame]]
Say = Callable[[Asked], Answer]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "FIRST_WAIT", 0.005)


def texts_shown(asked: Asked) -> list[str]:
    shown = texts_in(asked)["responses"]
    assert [one["position"] for one in shown] == list(range(len(shown)))
    return [one["text"] for one in shown]


def prefers_last_in_the_alphabet(kind: str) -> Say:
    """Judges texts alone, whatever their order."""

    def answer(asked: Asked) -> Answer:
        texts = texts_shown(asked)
        order = sorted(texts, reverse=True)
        ranks = [order.index(text) + 1 for text in texts]
        said: dict[str, Any] = {
            "pair": {"choice": ranks.index(1)},
            "best_of_k": {"best": ranks.index(1)},
            "ranking": {"ranks": ranks},
            "rating": {"ratings": {axis: [8 - rank for rank in ranks] for axis in ("overall", "kind")}},
        }[kind]
        return says(f"Let me see. {json.dumps(said)}")

    return answer


def work(store: EmbeddedLabelStore, folder: Path, machine: MachineAnnotator = MACHINE, **settings: Any) -> MachineWork:
    judge = Judge.of(machine, LocalStore(folder / "answers"), "labels")
    return judge_round(store, judge, machine, LabelingSettings(**settings), ROUND)


def labels_in(store: EmbeddedLabelStore, **settings: Any) -> pd.DataFrame:
    read = labels_table(store.read(ROUND, "train")[0], store.comparisons(ROUND, "train"), LabelingSettings(**settings))
    return read[0]


@pytest.mark.parametrize("kind", ["pair", "best_of_k", "ranking", "rating"])
@pytest.mark.parametrize("both", [True, False])
def test_it_labels_every_kind(
    kind: str, both: bool, sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, comparisons = sent(6, k=2 if kind == "pair" else 3, kind=kind)
    settings: dict[str, Any] = {"kind": kind, "rating_axes": ["overall", "kind"]}
    with judging(prefers_last_in_the_alphabet(kind), monkeypatch) as server:
        assert work(store, tmp_path, MACHINE.changed(both_orders=both), **settings) == MachineWork(6, 0, 0)
        assert len(server.asked) == (12 if both else 6)
    labels = labels_in(store, **settings)
    assert set(labels["annotator"]) == {"machine:judge"}
    responses = comparisons.set_index("comparison_id")["responses"]
    for comparison, ranks in zip(labels["comparison_id"], labels["ranks"], strict=True):
        texts = list(responses[comparison])
        assert list(ranks).index(1) == texts.index(max(texts))


def test_a_preference_for_the_first_becomes_a_tie(sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = sent(3, k=2, kind="pair")
    with judging(lambda _: says('{"choice": 0}'), monkeypatch) as server:
        work(store, tmp_path, kind="pair")
        first, second = (
            texts_shown(asked) for asked in sorted(server.asked, key=lambda one: texts_in(one)["prompt"])[:2]
        )
    assert first == second[::-1]
    assert [list(ranks) for ranks in labels_in(store)["ranks"]] == [[1, 1]] * 3


def test_a_judge_that_went_away_is_asked_for_the_rest(
    sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = sent(8, k=2, kind="pair")
    monkeypatch.setattr("rlhf_dagster.labeling.machine.LABELS_AT_ONCE", 3)
    good, count = prefers_last_in_the_alphabet("pair"), 0

    def falters(asked: Asked) -> Answer:
        nonlocal count
        count += 1
        return good(asked) if count <= 9 else (401, "expired")

    machine = MACHINE.changed(service=QUICK.changed(at_once=1))
    with judging(falters, monkeypatch), pytest.raises(UserError, match="expired"):
        work(store, tmp_path, machine, kind="pair")
    assert len(labels_in(store)) == 3
    with judging(good, monkeypatch) as server:
        assert work(store, tmp_path, machine, kind="pair") == MachineWork(5, 3, 0)
        assert len(server.asked) == 16 - 9
        assert work(store, tmp_path, machine, kind="pair") == MachineWork(0, 8, 0)
        assert len(server.asked) == 16 - 9


@pytest.mark.parametrize(
    "said", ['{"choice": 2}', '{"choice": "left"}', '{"choice": null}', '{"choice": [0]}', "The first.", '{"cho']
)
def test_nonsense_is_quarantined_with_what_was_said(
    said: str, sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, comparisons = sent(1, k=2, kind="pair")
    with judging(lambda _: says(said), monkeypatch) as server:
        assert work(store, tmp_path, MACHINE.changed(both_orders=False), kind="pair") == MachineWork(1, 0, 1)
        assert len(server.asked) == 3
        assert "cannot be used" in messages_in(server.asked[1])[-1]["content"]
        assert work(store, tmp_path, MACHINE.changed(both_orders=False), kind="pair") == MachineWork(0, 1, 0)
    labels, quarantine = labels_table(store.read(ROUND, "train")[0], comparisons)
    assert labels.empty
    assert quarantine["problem"].item().startswith("The judge gave no answer that can be read: ")
    assert said in json.loads(quarantine["raw"].item())


def test_a_rating_needs_every_axis(sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = sent(1, k=2, kind="rating")
    with judging(lambda _: says('{"ratings": {"overall": [1, 7]}}'), monkeypatch) as server:
        assert work(store, tmp_path, kind="rating", rating_axes=["overall", "kind"]).unreadable == 1
        assert "has no `kind`" in messages_in(server.asked[-1])[-1]["content"]
        assert '"overall": [1, 7], "kind": [1, 7]' in messages_in(server.asked[0])[0]["content"]


def test_a_share_is_drawn_by_a_hash(sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, comparisons = sent(60, k=2, kind="pair")
    half = MACHINE.changed(share=0.5, both_orders=False)
    chosen = [is_judged({"comparison_id": key}, half) for key in comparisons["comparison_id"]]
    assert 15 < sum(chosen) < 45
    with judging(prefers_last_in_the_alphabet("pair"), monkeypatch):
        assert work(store, tmp_path, half, kind="pair").given == sum(chosen)
    assert set(labels_in(store)["comparison_id"]) == set(comparisons["comparison_id"][chosen])


def test_its_labels_fill_no_persons_place(
    sent: Sent, tmp_path: Path, annotator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, comparisons = sent(5, k=2, kind="pair")
    people = [annotator(f"person-{number}") for number in range(3)]
    before = find_work(store, people, ROUND, "train", 0).missing
    with judging(prefers_last_in_the_alphabet("pair"), monkeypatch):
        work(store, tmp_path, kind="pair")
    after = find_work(store, people, ROUND, "train", 0).missing
    assert [(who.name, row["comparison_id"]) for who, row in after] == [
        (who.name, row["comparison_id"]) for who, row in before
    ]
    counts = store.count(ROUND, "train")
    assert (counts.labels, counts.usable, counts.new, counts.labelled, counts.complete) == (0, 0, 0, 0, 0)
    assert counts.machine == 5
    store.submit(comparisons["comparison_id"][0], "person-0", {"choice": 0})
    counts = store.count(ROUND, "train")
    assert (counts.labels, counts.usable, counts.new, counts.labelled, counts.machine) == (1, 1, 1, 1, 5)


def test_where_nobody_else_is_asked_its_labels_count(
    store: EmbeddedLabelStore, sent: Sent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, comparisons = sent(6, k=2, kind="pair")
    alone = MACHINE.changed(instead_of_people=True, share=0.5)
    roles = comparisons.assign(role=["gold", *comparisons["role"][1:]])
    marked = without_people(roles, alone)
    judged = [is_judged(row, alone) for row in roles.to_dict("records")]
    assert marked["labels_wanted"].tolist() == [
        0 if of_machine and role != "gold" else wanted
        for of_machine, role, wanted in zip(judged, roles["role"], roles["labels_wanted"], strict=True)
    ]
    assert without_people(roles, MACHINE)["labels_wanted"].tolist() == roles["labels_wanted"].tolist()
    again = EmbeddedLabelStore(tmp_path / "other.sqlite")
    again.send(without_people(comparisons, MACHINE.changed(instead_of_people=True)))
    with judging(prefers_last_in_the_alphabet("pair"), monkeypatch):
        work(again, tmp_path, kind="pair")
    counts = again.count(ROUND, "train")
    assert (counts.usable, counts.new, counts.complete, counts.machine) == (6, 6, 6, 6)


def test_names_of_machines_are_no_pseudonyms(store: EmbeddedLabelStore) -> None:
    assert pseudonym("machine:gpt") == "machine:gpt"
    assert is_machine("machine:gpt")
    assert not is_machine(pseudonym("person"))
    frame = pd.DataFrame({"annotator": ["machine:x", "a"]})
    assert by_people(frame)["annotator"].tolist() == ["a"]
    assert by_people(frame.iloc[:0]).empty


def test_a_machine_in_place_of_people_needs_the_embedded_store() -> None:
    wrong = {
        "labeling": {"judge": {"model": "m", "instead_of_people": True}},
        "label_store": {"kind": "label_studio", "simulated_annotators": False},
    }
    with pytest.raises(UserError, match=r"instead_of_people needs `label_store\.kind: embedded`"):
        LoopConfig.parse(wrong, "loop.yaml")
    assert "judge" not in LoopConfig().labeling.recorded()


def test_a_tie_submitted_by_nobody_else_is_usable(store: EmbeddedLabelStore, sent: Sent) -> None:
    _, comparisons = sent(1, k=2, kind="pair")
    store.submit_many([Submission(comparisons["comparison_id"][0], "machine:judge", {"choice": "tie"})])
    assert len(usable_labels(labels_in(store))) == 1
