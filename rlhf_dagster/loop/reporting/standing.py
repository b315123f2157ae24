"""What has become of a round's policy, from the registry and the round's files; its report begins with it."""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.common.sealed import html_of, is_whole_page, seal_page
from rlhf_dagster.evaluation.gate import NOT_IN_THE_WAY, rules_as_dicts
from rlhf_dagster.evaluation.standing import Standing, before_people
from rlhf_dagster.evaluation.win_rate import BEHAVIOUR, PEOPLE, find_win_rate
from rlhf_dagster.lineage.registry import ChampionRecord
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.promotion import PERSON_RULE
from rlhf_dagster.pages.report import with_standing

_PREFERENCE_RULES = ("min_win_rate", "min_length_controlled_win_rate")
_TOUCHED = 3
"""A change of the champion concerns the reports of the policies in the last entries of the history."""


def standing_of(loop: LoopFolder, round_key: str, decision: dict[str, Any] | None = None) -> Standing | None:
    """What has become of the policy that a round's report is about; None without a report.

    ``decision`` is the one on it that is not written yet; without one it is what the round's files say.
    """
    report = loop.json("eval_report", round_key)
    if report is None:
        return None
    policy, decision = str(report["policy_id"]), decision or loop.decision(round_key)
    early = decide(loop, report, None)
    rules = decision["rules"] if decision else rules_as_dicts(early.rules)
    history = loop.registry.history()
    if any(entry.policy_id == policy for entry in history):
        return _as_champion(policy, history, rules)
    if decision:
        return _undecided_or_refused(loop, round_key, decision)
    return before_people(policy, early.passed, loop.config.evaluation.asks_people, rules)


def _as_champion(policy: str, history: Sequence[ChampionRecord], rules: Sequence[dict[str, str]]) -> Standing:
    """Of a policy that is the champion or was it."""
    place = max(index for index, entry in enumerate(history) if entry.policy_id == policy)
    entry, later = history[place], history[place + 1 : place + 2]
    came = "promoted" if entry.action == "promotion" else "brought back"
    notes = [f"{came.capitalize()} on {_day(entry)} by {entry.by}: {entry.reason}"]
    if not later:
        return Standing(f"{policy} is the champion, {came} on {_day(entry)} by {entry.by}.", "pass", rules, notes)
    after = later[0]
    notes.append(f"{after.policy_id} took its place on {_day(after)}, by {after.by}: {after.reason}")
    if after.action == "rollback":
        said = f"{policy} was rolled back on {_day(after)} by {after.by}; {after.policy_id} took its place."
        return Standing(said, "fail", rules, notes)
    said = f"{policy} was the champion until {_day(after)}, when {after.policy_id} of {after.round_key} took its place."
    return Standing(said, "warn", rules, notes)


def _undecided_or_refused(loop: LoopFolder, round_key: str, decision: dict[str, Any]) -> Standing:
    policy, rules, reasons = decision["policy"], decision["rules"], list(decision["reasons"])
    if decision["outcome"] == "waiting for approval":
        said = f"{policy} passes the gate and waits for a person's approval."
        return Standing(said, "warn", rules, reasons[:1])
    if decision["outcome"] == "not enough judgments":
        return Standing(f"{policy} waits for more judgments by people.", "warn", rules)
    if decision["outcome"] == "pass":
        return Standing(f"{policy} passes the gate and is not promoted.", "warn", rules, reasons)
    failed = [rule["rule"] for rule in rules if rule["outcome"] not in NOT_IN_THE_WAY]
    if PERSON_RULE in failed:
        word = loop.registry.last_word(policy)
        return Standing(f"{policy} was refused by {word.by if word else 'a person'}.", "fail", rules)
    by_people = _by_people(loop, round_key, policy) if set(failed) & set(_PREFERENCE_RULES) else ""
    return Standing(f"{policy} was refused{by_people or ' by the gate'}.", "fail", rules)


def _by_people(loop: LoopFolder, round_key: str, policy: str) -> str:
    """Who has judged the policy, and how; empty where the win rate of the gate is not by people."""
    human = loop.json("human_evaluation", round_key) or {}
    if human.get("policy_id") != policy or not loop.config.evaluation.asks_people:
        return ""
    rate = find_win_rate(human.get("win_rates") or [], PEOPLE, BEHAVIOUR)
    if rate is None or rate["value"] is None:
        return ""
    who = "people" if rate["judge"] == PEOPLE[0] else rate["judge"]
    return f" by {who}: preferred to the champion in {rate['value']:.1%} of {rate['n']:,} judgments"


def refresh_reports(loop: LoopFolder, decisions: Mapping[str, dict[str, Any]] | None = None) -> list[str]:
    """Have the reports of rounds that are decided just now, and of the last champions, begin with what is true now.

    ``decisions`` are those that are not written yet, by round. Pages that version 0.1 wrote, and damaged ones, stay as
    they are. Returns the rounds whose reports were read.
    """
    touched = [entry.round_key for entry in loop.registry.history()[-_TOUCHED:]]
    new = decisions or {}
    keys = [key for key in dict.fromkeys([*new, *touched]) if loop.store.exists(_page(loop, key))]
    for key in keys:
        _refresh(loop, key, standing_of(loop, key, new.get(key)))
    return keys


def _refresh(loop: LoopFolder, round_key: str, standing: Standing | None) -> None:
    found = loop.store.get(_page(loop, round_key))
    if found is None or standing is None or not is_whole_page(found.data):
        return
    page = html_of(found.data)
    now = with_standing(page, standing)
    if now != page:
        loop.store.put(_page(loop, round_key), seal_page(now))


def _page(loop: LoopFolder, round_key: str) -> str:
    return loop.asset_key("eval_report", round_key, "html")


def _day(entry: ChampionRecord) -> str:
    return entry.at[:10]
