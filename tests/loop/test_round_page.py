"""The round page in every state of a loop, from files written by hand: what each round became, and what waits."""

import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import typer
from batches import open_loop, send
from hypothesis import given
from hypothesis import strategies as st
from loops import ROUND, asset_path, copy_folder
from rounds_on_disk import key, promote, rate, refuse, register, report, store, win

from rlhf_dagster.cli.app import app
from rlhf_dagster.common.intervals import wilson
from rlhf_dagster.labeling.store import LabelStoreUnavailable
from rlhf_dagster.lineage.stop_cord import pull
from rlhf_dagster.loop import round_page, round_state
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_page import IN_FULL, gather, write_round_page
from rlhf_dagster.pages.annotators import annotator_rows, observations
from rlhf_dagster.pages.rounds import RoundsPage

MADE = datetime(2026, 11, 21, 9, 30, tzinfo=UTC)
EVIL = "</td><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture
def loop(tmp_path: Path) -> LoopFolder:
    loop = open_loop(tmp_path / "loop")
    register(loop, "sft", "")
    loop.registry.set_initial("sft")
    return loop


def page(loop: LoopFolder, *rounds: str) -> RoundsPage:
    """What the page says; that it can be written is checked along the way."""
    running = ["train_round of round-0002, since 10:32"]
    written = write_round_page(loop, list(rounds), running, MADE)
    assert "since 10:32" in (loop.root / "rounds.html").read_text(encoding="utf-8")
    found = gather(loop, rounds, [], MADE)
    assert replace(found, running=running) == written
    return found


def verdicts(found: RoundsPage) -> dict[str, str]:
    return {row.round: row.verdict for row in [*found.rounds, *found.earlier]}


def test_an_empty_loop(tmp_path) -> None:
    found = page(open_loop(tmp_path / "loop"))
    assert (found.rounds, found.waiting, found.champions, found.problems) == ([], [], [], [])


def test_an_opened_round(loop) -> None:
    found = page(loop, ROUND)
    assert verdicts(found) == {ROUND: "waiting"}
    assert found.rounds[0].because == ["Not sampled yet."]
    assert found.waiting[0].sentence.startswith("round-0001 waits for collect_round")
    assert found.champions[0].policy_id == "sft"


def test_a_round_that_is_being_labelled_counts_what_is_there_now(loop) -> None:
    send(loop, 5)
    comparison = loop.ledger.comparisons(ROUND, "train")["comparison_id"].iloc[0]
    loop.ledger.submit(comparison, "ada", {"choice": 0, "strength": 0.5})
    loop.registry.pin(ROUND)
    found = page(loop, ROUND)
    row, (waiting,) = found.rounds[0], found.waiting
    assert (row.comparisons, row.labels, row.sampled, row.annotators) == (5, 1, "sft", None)
    assert waiting.wanted == 5
    assert waiting.done in (0, 1)
    assert "waits for annotators" in waiting.sentence


def test_labels_that_are_left_out_are_counted(loop) -> None:
    send(loop, 5)
    loop.write_json("eval_report", ROUND, report("p1"))
    loop.write_json("preference_dataset", ROUND, {"left_out": {ROUND: 17}})
    assert gather(loop, [ROUND], [], MADE).rounds[0].left_out == 17
    write_round_page(loop, [ROUND], [], MADE)
    assert "17 left out" in (loop.root / "rounds.html").read_text(encoding="utf-8")


def test_what_became_of_each_round(loop) -> None:
    refuse(loop, key(1), "p1", "The KL is over.")
    promote(loop, key(2), "p2")
    promote(loop, key(4), "p4")
    send(loop, 2, key(5))
    refuse(loop, key(5), "p5", "Worse.")
    found = page(loop, *(key(number) for number in range(1, 6)))
    assert [row.round for row in found.rounds] == [key(number) for number in (5, 4, 3, 2, 1)]
    assert list(verdicts(found).values()) == ["refused", "champion", "overtaken", "promoted", "refused"]
    reasons = {row.round: row.because for row in found.rounds}
    assert (reasons[key(5)], reasons[key(1)]) == (["Worse."], ["The KL is over."])
    assert reasons[key(4)][0].endswith("by gate: every rule is met.")
    assert [(item.sentence.split(";")[0], item.reasons) for item in found.waiting] == [
        ("round-0005 was refused", ["Worse."])
    ]


def test_what_the_gate_refused_before_people_were_asked_has_its_reasons(loop) -> None:
    bad = report("p1") | {"policies": {"policy": {"kl": rate(6000.0), "distinct": 1.0, "length": 10.0}, "sft": {}}}
    store(loop, "eval_report", key(1), bad)
    promote(loop, key(2), "p2")
    row = page(loop, key(1), key(2)).rounds[1]
    assert (row.verdict, row.because) == ("refused", decide(loop, bad, None).reasons)


def test_a_decision_on_an_earlier_policy_of_the_round_is_none(loop, monkeypatch) -> None:
    monkeypatch.setattr(round_page, "undecided_rounds", lambda *_: [])
    refuse(loop, key(1), "p1")
    store(loop, "eval_report", key(1), report("p1-again"))
    row = page(loop, key(1)).rounds[0]
    assert row.policy == "p1-again"
    assert row.because != ["Too long."]


def test_a_rollback_shows_on_the_round_and_in_the_history(loop) -> None:
    promote(loop, key(1), "p1")
    promote(loop, key(2), "p2")
    loop.registry.rollback("p1", by="ada", reason="p2 flatters.")
    found = page(loop, key(1), key(2))
    assert verdicts(found) == {key(2): "rolled_back", key(1): "champion"}
    assert "Rolled back to p1" in found.rounds[0].because[1]
    assert found.rounds[0].because[1].endswith("by ada: p2 flatters.")
    assert len(found.rounds[1].because) == 1
    assert [entry.action for entry in found.champions] == ["rollback", "promotion", "promotion", "initial"]


def test_figures_come_from_what_is_stored(loop) -> None:
    promote(loop, key(1), "p1")
    store(loop, "round_manifest", key(1), {"round": key(1), "behaviour_policy": "sft", "checkpoint": "models/sft"})
    people = [win("annotators", "sft", 0.7), win("annotators", "behaviour", 0.6)]
    store(loop, "human_evaluation", key(1), {"policy_id": "p1", "win_rates": people})
    store(loop, "label_quality", key(1), {"summary": {"agreement": rate(0.5), "annotators": 4}, "annotators": []})
    asset_path(loop, "eval_report", key(1), "html").write_text("page")
    row = page(loop, key(1)).rounds[0]
    assert (row.sampled, row.policy, row.report) == ("sft", "p1", "assets/eval_report/round-0001.html")
    assert (row.comparisons, row.labels, row.annotators) == (40, 50, 4)
    assert (row.accuracy, row.accuracy_on, row.length_baseline) == (rate(0.6), "on other prompts", rate(0.3))
    assert (row.agreement, row.kl) == (rate(0.5), rate(6.0))
    assert (row.against_sft, row.against_champion) == tuple(people)


def test_other_annotators_say_more_about_a_reward_model_than_other_prompts(loop) -> None:
    splits = {"validation": {"accuracy": rate(0.6)}, "held_out_annotators": {"accuracy": rate(0.55)}}
    store(loop, "reward_model_accuracy", key(1), {"splits": splits})
    row = page(loop, key(1)).rounds[0]
    assert (row.accuracy, row.accuracy_on) == (rate(0.55), "by other annotators")


@pytest.mark.parametrize(
    "human",
    [
        {},
        {"policy_id": "an earlier one", "win_rates": [win("annotators", "sft", 0.1)]},
        {"policy_id": "p1", "win_rates": [win("annotators", "sft", 0.5, n=0)]},
    ],
)
def test_without_judgments_of_this_policy_the_reward_model_is_quoted_and_never_the_gold_judge(loop, human) -> None:
    promote(loop, key(1), "p1")
    store(loop, "human_evaluation", key(1), human)
    row = page(loop, key(1)).rounds[0]
    assert row.against_sft == win("reward model", "sft", 0.9)


def test_late_labels_of_an_earlier_round_are_in_the_newest_report(loop) -> None:
    promote(loop, key(1), "p1")
    late = [{"round": key(1), "comparisons": 40, "labels": 77, "annotators": 6}]
    promote(loop, key(2), "p2")
    store(loop, "eval_report", key(2), report("p2", labels={"by_round": late}))
    rows = {row.round: row for row in page(loop, key(1), key(2)).rounds}
    assert (rows[key(1)].labels, rows[key(1)].annotators) == (77, 6)


def test_no_label_store_is_asked_about_rounds_that_are_decided(loop, monkeypatch) -> None:
    for number in range(1, 6):
        promote(loop, key(number), f"p{number}")
        send(loop, 1, key(number))
    monkeypatch.setattr(type(loop.ledger), "count", lambda *_, **__: pytest.fail("asked"))
    assert len(page(loop, *(key(number) for number in range(1, 6))).rounds) == 5


def test_a_label_server_that_is_down_leaves_a_page_that_says_so(loop, monkeypatch) -> None:
    def down(*_: object, **__: object) -> None:
        raise LabelStoreUnavailable("http://labels does not answer; start it.")

    promote(loop, key(1), "p1")
    send(loop, 3, key(2))
    monkeypatch.setattr(type(loop.ledger), "count", down)
    found = page(loop, key(1), key(2))
    assert found.problems == ["What the open rounds wait for is not known: http://labels does not answer; start it."]
    assert verdicts(found) == {key(2): "unknown", key(1): "champion"}


@pytest.mark.parametrize("asset", round_page.STORED)
def test_a_damaged_file_is_named_and_the_rest_is_shown(loop, asset) -> None:
    promote(loop, key(1), "p1")
    store(loop, asset, key(1), {}).write_text('{"policy": ')
    found = page(loop, key(1))
    assert (
        f"assets/{asset}/round-0001.json is damaged: it is not valid JSON; run {asset} of round-0001 again."
        in found.problems
    )
    assert verdicts(found) == {key(1): "champion"}


def test_partitions_that_are_no_rounds_are_named_and_read_nothing(loop) -> None:
    (loop.root.parent / "secret.json").write_text('{"policy_id": "secret"}')
    found = page(loop, ROUND, "../../../secret", "banana", EVIL)
    assert [row.round for row in found.rounds] == [ROUND]
    assert "banana is not a round; delete this partition." in found.problems
    assert len(found.problems) == 3
    assert "secret</" not in (loop.root / "rounds.html").read_text()


def test_many_rounds_are_shown_newest_first_the_older_ones_short(loop) -> None:
    count = 2 * IN_FULL + 20
    for number in range(1, count + 1):
        (promote if number % 2 else refuse)(loop, key(number), f"p{number}")
    found = page(loop, *(key(number) for number in range(1, count + 1)))
    assert [row.number for row in found.rounds] == list(range(count, count - IN_FULL, -1))
    assert [row.number for row in found.earlier] == list(range(count - IN_FULL, 0, -1))
    assert {row.verdict for row in found.earlier if row.number % 2} == {"promoted"}
    assert {row.verdict for row in found.earlier if row.number % 2 == 0} == {"refused"}
    assert all(row.policy == f"p{row.number}" for row in found.earlier)
    assert len(found.champions) == IN_FULL
    assert found.champions_left_out == 1 + count // 2 - IN_FULL


def test_of_a_thousand_rounds_only_the_newest_reports_are_read(loop, monkeypatch) -> None:
    for number in range(1, 1001):
        content = {"policy": f"p{number}", "promoted": False, "outcome": "fail", "reasons": ["No."]}
        store(loop, "promotion", key(number), content)
    promote(loop, "round-1001", "p1001")
    opened = []
    read = round_page._read
    monkeypatch.setattr(round_page, "_read", lambda loop, key, assets: opened.append(assets) or read(loop, key, assets))
    found = page(loop, *(key(number) for number in range(1, 1002)))
    assert len(found.earlier) == 1001 - IN_FULL
    assert sum("eval_report" in assets for assets in opened) == 2 * IN_FULL  # written once, gathered once
    assert len((loop.root / "rounds.html").read_bytes()) < 500_000


def test_the_round_of_imported_judgments(loop) -> None:
    store(loop, "round_manifest", key(0), {"round": key(0), "behaviour_policy": "imported", "checkpoint": ""})
    promote(loop, key(1), "p1")
    row = page(loop, key(0), key(1)).rounds[1]
    assert (row.round, row.number, row.sampled, row.verdict) == (key(0), 0, "imported", "overtaken")


def test_a_stopped_loop(loop) -> None:
    pull(loop.store, "ada", "The labels are wrong.")
    found = page(loop, ROUND)
    assert found.stop is not None
    assert found.stop.by == "ada"
    assert "The labels are wrong." in (loop.root / "rounds.html").read_text()


def next_commands(found: RoundsPage) -> list[str]:
    """The commands at the end of the page, each of which is one."""
    commands = [command for _, command in found.next_steps]
    for command in commands:
        parsed: Any = typer.main.get_command(app)
        words = shlex.split(command)[1:]
        while hasattr(parsed, "commands"):
            parsed = parsed.commands[words.pop(0)]
        with parsed.make_context("rlhf", words) as context:
            assert context.params
    return [command.split(" --loop ")[0] for command in commands]


def test_the_page_ends_with_what_a_reader_may_do_next(loop, tmp_path) -> None:
    look = ["rlhf ui", "rlhf init FOLDER"]
    talk = ["rlhf chat", 'rlhf generate "PROMPT" --policy champion --beside sft']
    assert next_commands(page(open_loop(tmp_path / "new"))) == look
    assert next_commands(page(loop)) == ["rlhf round open", *talk, *look]
    assert next_commands(page(loop, ROUND)) == [*talk, *look], "a round that is open says itself what it waits for"
    promote(loop, ROUND, "p1")
    assert next_commands(page(loop, ROUND)) == ["rlhf round open", *talk, "rlhf publish --to FOLDER", *look]
    pull(loop.store, "ada", "The labels are wrong.")
    assert next_commands(page(loop, ROUND)) == ["rlhf resume", *talk, "rlhf publish --to FOLDER", *look]
    assert f"<code>rlhf resume --loop {loop.root}</code>" in (loop.root / "rounds.html").read_text()


def test_hostile_texts_stay_texts(loop) -> None:
    quality = [{"annotator": EVIL, "labels": 3, "review": f"\ud800{EVIL}", "agreement": None, "agreement_n": 0}]
    promote(loop, key(1), "p1")
    store(loop, "label_quality", key(1), {"summary": {}, "annotators": quality})
    refuse(loop, key(2), EVIL, EVIL)
    loop.registry.rollback("sft", by=EVIL, reason=EVIL)
    pull(loop.store, EVIL, EVIL)
    write_round_page(loop, [key(1), key(2), EVIL], [EVIL], MADE)
    text = (loop.root / "rounds.html").read_text(encoding="utf-8")
    assert text.count("&lt;script&gt;") >= 10
    assert "<script" not in text
    assert "<img src=x" not in text


def test_the_page_of_a_loop_that_has_run(stages, tmp_path) -> None:

    copy_folder(stages.finished, tmp_path / "loop")
    found = page(LoopFolder.open(tmp_path / "loop"), ROUND)
    row = found.rounds[0]
    assert (found.problems, found.waiting, row.verdict) == ([], [], "champion")
    assert None not in (row.accuracy, row.agreement, row.against_champion, row.against_sft, row.kl, row.report)
    assert row.against_sft["judge"] == "simulated annotators"
    assert sum(annotator.labels for annotator in found.annotators) == row.labels
    assert len(found.annotators) == row.annotators


@given(st.integers(1, 200_000), st.data())
def test_the_number_of_observations_follows_from_the_interval(n, data) -> None:
    found = wilson(data.draw(st.integers(0, n)), n)
    assert observations(found.value, found.low, found.high) == n


def quality_row(name: str, so: int, n: int, first: int, review: str = "") -> dict[str, Any]:
    found = wilson(first, 10)
    return {
        "annotator": name,
        "labels": n,
        "agreement": so / n,
        "agreement_n": n,
        "gold_accuracy": None,
        "gold_n": 0,
        "first_position_share": found.value,
        "first_position_low": found.low,
        "first_position_high": found.high,
        "chance_first": 0.5,
        "competence": so / n,
        "review": review,
    }


def test_annotators_are_measured_over_all_rounds() -> None:
    """ann: 9 of 10, then 18 of 30, so 27 of 40; first position 2 and 6 of 10, so 8 of 20."""
    rows = annotator_rows(
        {
            key(2): [quality_row("ann", 18, 30, 6, "Look.")],
            key(1): [quality_row("ann", 9, 10, 2, "Long ago."), quality_row("bob", 50, 60, 5)],
        }
    )
    ann, bob = rows
    assert (ann.annotator, ann.rounds, ann.latest, ann.labels) == ("ann", 2, key(2), 40)
    assert ann.agreement == wilson(27, 40).as_dict()
    assert ann.first_position == wilson(8, 20).as_dict() | {"chance": 0.5}
    assert (ann.gold, ann.competence, ann.review) == (None, 0.6, "Look.")
    assert (bob.rounds, bob.latest, bob.review) == (1, key(1), "")


def test_who_is_worth_a_look_comes_first() -> None:
    names = [
        row.annotator
        for row in annotator_rows(
            {ROUND: [quality_row(*given) for given in [("a", 1, 5, 1), ("b", 1, 9, 1), ("c", 1, 2, 1, "Look.")]]}
        )
    ]
    assert names == ["c", "b", "a"]


def test_every_phase_that_waits_has_its_words() -> None:
    assert set(round_page.DOING) == set(round_state.Phase.__args__) - set(round_state.DECIDED)
