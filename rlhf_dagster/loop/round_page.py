"""The page of all rounds, gathered from the loop's folder; the label store is asked about undecided rounds alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from rlhf_dagster.common.sealed import seal_page
from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, PEOPLE, POLICY, REWARD_MODEL, SFT, find_win_rate
from rlhf_dagster.lineage.registry import ChampionRecord
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder, standing
from rlhf_dagster.loop.round_state import Phase, RoundState, undecided_rounds, waits_for
from rlhf_dagster.pages.annotators import annotator_rows, machine_rows
from rlhf_dagster.pages.rounds import (
    RoundRow,
    RoundsPage,
    RoundVerdict,
    ShownRate,
    WaitingRound,
    day,
    render_rounds,
)
from rlhf_dagster.pages.server import ROUNDS_PAGE
from rlhf_dagster.records.round_keys import round_number

IN_FULL = 30
"""How many rounds are shown with all figures, and how many changes of the champion are listed. A report holds figures
of every round before it, so that reading all reports of a thousand rounds would take longer than a sensor may run."""
STORED = (
    *("round_manifest", "reward_model_accuracy", "eval_report", "human_evaluation", "promotion", "label_quality"),
    "preference_dataset",
)
ACCURACY_ON = {"held_out_annotators": "by other annotators", "validation": "on other prompts"}
"""Splits that no reward model was trained on, with the page's words for them; the first that has figures is shown."""
DOING: dict[Phase, str] = {
    "opened": "Not sampled yet.",
    "labelling": "Labelled and trained on now.",
    "trained": "Trained; not decided on yet.",
    "judging": "Judged by people now.",
    "approval": "Every rule is met; waits for a person’s approval.",
}


@dataclass(frozen=True)
class _Round:
    """What is on disk about a round: the contents of assets/NAME/ROUND.json, empty where there is no such file.

    All of it may be damaged or missing: the page says so, and shows the rest.
    """

    key: str
    stored: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    unreadable: Sequence[str] = ()

    def __getitem__(self, asset: str) -> dict[str, Any]:
        return self.stored.get(asset, {})

    @property
    def decision(self) -> dict[str, Any]:
        """The decision on the round's policy, empty where it was about an earlier policy of the round."""
        return standing(self["promotion"], self["eval_report"]) or {}

    @property
    def policy(self) -> str | None:
        return self["eval_report"].get("policy_id") or self["promotion"].get("policy")


def write_round_page(
    loop: LoopFolder, rounds: list[str], running: Sequence[str] = (), now: datetime | None = None
) -> RoundsPage:
    """Write the page of ``rounds`` to :data:`ROUNDS_PAGE` in the loop's store, and return what it says.

    ``running`` holds a sentence for each run that is active; ``now`` is when the page is made.
    """
    page = gather(loop, rounds, running, (now or datetime.now(UTC)).astimezone(UTC))
    loop.store.put(ROUNDS_PAGE, seal_page(render_rounds(page)))
    return page


def gather(loop: LoopFolder, rounds: Iterable[str], running: Sequence[str], made: datetime) -> RoundsPage:
    """All that the page says. Partitions that are no rounds, which people can add in the UI, are named as problems."""
    names = set(rounds)
    keys = sorted((name for name in names if round_number(name) is not None), reverse=True)
    problems = [f"{name} is not a round; delete this partition." for name in sorted(names - set(keys))]
    states, problem = _undecided(loop, keys)
    history = loop.registry.history()
    full = [_read_round(loop, key) for key in keys[:IN_FULL]]
    earlier = [_read_decision(loop, key) for key in keys[IN_FULL:]]
    problems += [*problem, *(problem for found in [*full, *earlier] for problem in found.unreadable)]
    counts = _counts(full)
    verdicts = {found.key: _verdict(loop, found, states.get(found.key), history) for found in [*full, *earlier]}
    return RoundsPage(
        loop=loop.config.name,
        made=made,
        stop=read_stop(loop.store),
        problems=problems,
        waiting=[_waiting(loop, state) for state in states.values()],
        running=running,
        champions=history[: -IN_FULL - 1 : -1],
        champions_left_out=max(0, len(history) - IN_FULL),
        rounds=[_row(loop, found, verdicts[found.key], states.get(found.key), counts) for found in full],
        earlier=[_head(loop, found, verdicts[found.key]) for found in earlier],
        annotators=annotator_rows({found.key: found["label_quality"].get("annotators") or [] for found in full}),
        machines=machine_rows({found.key: _machines(found) for found in full}),
        next_steps=_next_steps(loop, history, bool(states)),
    )


def _undecided(loop: LoopFolder, keys: list[str]) -> tuple[dict[str, RoundState], list[str]]:
    """States of the undecided rounds by key; where they cannot be read, none, and a sentence that says why."""
    try:
        return {state.round: state for state in undecided_rounds(loop, keys)}, []
    except (UserError, ValueError) as error:
        return {}, [f"What the open rounds wait for is not known: {error}"]


def _next_steps(loop: LoopFolder, history: Sequence[ChampionRecord], undecided: bool) -> list[tuple[str, str]]:
    """What a reader may do now, and its command: the loop's way on first, then a look, then loops of one's own."""
    steps = []
    if read_stop(loop.store):
        steps.append(("Let the loop go on", f"rlhf resume {loop.option}"))
    elif history and not undecided:
        steps.append(("Begin the next round", f"rlhf round open {loop.option}"))
    if history:
        steps.append(("Talk to the champion", f"rlhf chat {loop.option}"))
        beside = "--policy champion --beside sft"
        steps.append(("Read its answer beside SFT’s", f'rlhf generate "PROMPT" {beside} {loop.option}'))
    if any(entry.action == "promotion" for entry in history):
        steps.append(("Give the champion away", f"rlhf publish --to FOLDER {loop.option}"))
    steps.append(("Look at assets, runs and checks", f"rlhf ui {loop.option}"))
    steps.append(("Begin a loop with data of your own", "rlhf init FOLDER"))
    return steps


def _waiting(loop: LoopFolder, state: RoundState) -> WaitingRound:
    counts = {"labelling": state.labels, "judging": state.judgments}.get(state.phase)
    sentence = waits_for(loop, state)
    if state.phase == "refused":
        sentence = f"{state.round} was refused; more labels, or the next round, may bring a better policy."
    if counts is None:
        return WaitingRound(sentence, reasons=state.reasons)
    return WaitingRound(sentence, counts.complete, counts.comparisons, state.reasons)


def _verdict(
    loop: LoopFolder, found: _Round, state: RoundState | None, history: Sequence[ChampionRecord]
) -> tuple[RoundVerdict, list[str]]:
    """What became of a round, and sentences about why."""
    promotions = [entry for entry in history if (entry.action, entry.round_key) == ("promotion", found.key)]
    if promotions:
        return _promoted(promotions[-1], history)
    if state is not None:
        return ("refused", state.reasons) if state.phase == "refused" else ("waiting", [DOING[state.phase]])
    if found.decision.get("outcome") == "fail":
        return "refused", found.decision["reasons"]
    if found["eval_report"] and not found.decision:
        early = decide(loop, found["eval_report"], None)
        if not early.passed:
            return "refused", early.reasons
    if any(entry.action == "promotion" and entry.round_key > found.key for entry in history):
        return "overtaken", ["A later round was promoted; the labels count there."]
    return "unknown", ["Not decided."]


def _promoted(promotion: ChampionRecord, history: Sequence[ChampionRecord]) -> tuple[RoundVerdict, list[str]]:
    promoted, after = _change("Promoted", promotion), history[history.index(promotion) + 1 :]
    if history[-1].policy_id == promotion.policy_id:
        return "champion", [promoted]
    if after[0].action == "rollback":
        return "rolled_back", [promoted, _change(f"Rolled back to {after[0].policy_id}", after[0])]
    return "promoted", [promoted]


def _change(what: str, entry: ChampionRecord) -> str:
    return f"{what} on {day(entry.at)} by {entry.by}: {entry.reason.rstrip('.')}."


def _row(
    loop: LoopFolder,
    found: _Round,
    verdict: tuple[RoundVerdict, list[str]],
    state: RoundState | None,
    counts: Mapping[str, Mapping[str, int]],
) -> RoundRow:
    """A row with all figures; labels that arrive now are counted by the label store."""
    now = state.labels if state else None
    counted = counts.get(found.key) or found["label_quality"].get("summary") or {}
    split, accuracy = _accuracy(found)
    return replace(
        _head(loop, found, verdict),
        sampled=found["round_manifest"].get("behaviour_policy") or loop.registry.pinned(found.key),
        comparisons=now.comparisons if now else counted.get("comparisons"),
        labels=now.labels if now else counted.get("labels"),
        annotators=counted.get("annotators"),
        machine=now.machine if now else counted.get("machine"),
        left_out=counted.get("left_out"),
        accuracy=_rate(accuracy.get("accuracy")),
        accuracy_on=ACCURACY_ON.get(split, ""),
        length_baseline=_rate(accuracy.get("length_baseline")),
        brevity_baseline=_rate(accuracy.get("brevity_baseline")),
        agreement=_rate((found["label_quality"].get("summary") or {}).get("agreement")),
        against_champion=_win_rate(found, BEHAVIOUR),
        against_sft=_win_rate(found, SFT),
        kl=_rate(found["eval_report"].get("policies", {}).get(POLICY, {}).get("kl")),
    )


def _head(loop: LoopFolder, found: _Round, verdict: tuple[RoundVerdict, list[str]]) -> RoundRow:
    """A row without figures."""
    outcome, because = verdict
    page = loop.asset_key("eval_report", found.key, "html")
    return RoundRow(
        round=found.key,
        number=round_number(found.key) or 0,
        verdict=outcome,
        because=because,
        report=page if loop.store.exists(page) else None,
        policy=found.policy,
    )


def _accuracy(found: _Round) -> tuple[str, dict[str, Any]]:
    """The split that is shown for the reward model, and its figures: those in the round's report, if it has any."""
    splits = (found["eval_report"].get("reward_model") or found["reward_model_accuracy"]).get("splits") or {}
    measured = [(name, splits[name]) for name in ACCURACY_ON if _rate((splits.get(name) or {}).get("accuracy"))]
    return measured[0] if measured else ("", {})


def _win_rate(found: _Round, against: str) -> ShownRate | None:
    """The win rate by people where they have judged this policy, otherwise by the reward model."""
    human, report = found["human_evaluation"], found["eval_report"]
    judged = human.get("win_rates", []) if human.get("policy_id") == report.get("policy_id") else []
    rates = [rate for rate in [*judged, *report.get("win_rates", [])] if rate.get("n")]
    return find_win_rate(rates, (*PEOPLE, REWARD_MODEL), against)


def _rate(figures: ShownRate | None) -> ShownRate | None:
    return figures if figures and figures.get("value") is not None else None


def _counts(found: Sequence[_Round]) -> dict[str, dict[str, int]]:
    """Label counts by round, from the newest report, which also counts the labels of the rounds before its own.

    How many are trained on nowhere is said by the newest snapshot.
    """
    reported = (entry["eval_report"].get("labels") or {} for entry in found)
    newest: list[dict[str, Any]] = next((labels["by_round"] for labels in reported if labels.get("by_round")), [])
    snapshots = (entry["preference_dataset"] for entry in found)
    left_out: dict[str, int] = next((snapshot["left_out"] for snapshot in snapshots if "left_out" in snapshot), {})
    return {row["round"]: {"left_out": left_out.get(row["round"], 0)} | row for row in newest}


def _machines(found: _Round) -> list[dict[str, Any]]:
    return (found["label_quality"].get("summary") or {}).get("machines") or []


def _read_round(loop: LoopFolder, key: str) -> _Round:
    return _read(loop, key, STORED)


def _read_decision(loop: LoopFolder, key: str) -> _Round:
    """How a round ended: its decision or, without one, its report, on which the gate may refuse before people judge."""
    found = _read(loop, key, ("promotion",))
    return found if found["promotion"] else _read(loop, key, ("eval_report",))


def _read(loop: LoopFolder, key: str, assets: Iterable[str]) -> _Round:
    stored: dict[str, dict[str, Any]] = {}
    unreadable = []
    for asset in assets:
        try:
            stored[asset] = loop.json(asset, key) or {}
        except UserError as damaged:
            unreadable.append(str(damaged))
    return _Round(key, stored, unreadable)
