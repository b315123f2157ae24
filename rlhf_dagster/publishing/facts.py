"""What a model card says of a policy, read from the loop: numbers, ids and decisions, and nobody's name."""

from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_dagster.evaluation.win_rate import PEOPLE, REWARD_MODEL, SIMULATED_ANNOTATORS
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.lineage.registry import GATE, ChampionRecord
from rlhf_dagster.loop.folder import LoopFolder

_AGAINST = {"sft": "the SFT policy", "behaviour": "the champion before"}


def facts_of(loop: LoopFolder, policy: Checkpoint) -> dict[str, Any]:
    """The lineage and the figures of a registered policy, for the template of the card."""
    record, manifest = loop.registry.get(policy.model_id), read_manifest(policy.folder)
    report = report_of(loop, policy.model_id, record.round_key)
    return {
        "policy": policy.model_id,
        "kind": record.kind.upper(),
        "round": record.round_key,
        "digest": policy.digest,
        "base": _base(loop),
        "parents": {role: parent["model_id"] for role, parent in manifest["parents"].items()},
        "data": list(_data(loop)),
        "labels": _labels(loop, report),
        "decision": decision_sentence(loop, policy.model_id, record.round_key),
        "win_rates": list(_win_rates(loop, report, record.round_key, "reward_model" in manifest["parents"])),
        "figures": list(_figures(report)),
        "rules": (loop.decision(record.round_key) or {}).get("rules", []) if report else [],
        "sampling": loop.config.sampling.model_dump(exclude={"batch_size"}),
        "made_with": {"rlhf_dagster": manifest["rlhf_dagster"], **manifest["packages"]},
        "made_on": manifest["created_at"][:10],
    }


def report_of(loop: LoopFolder, policy_id: str, round_key: str) -> dict[str, Any]:
    """The report about exactly this policy; empty where there is none."""
    report = (loop.json("eval_report", round_key) if round_key else None) or {}
    return report if report.get("policy_id") == policy_id else {}


def decision_sentence(loop: LoopFolder, policy_id: str, round_key: str) -> str:
    """What was decided on a policy, without the names of those who did and without their words."""
    history = loop.registry.history()
    place = max((index for index, entry in enumerate(history) if entry.policy_id == policy_id), default=None)
    if place is not None:
        return _as_champion(history[place], history[place + 1 : place + 2])
    decision = (loop.decision(round_key) if round_key else None) or {}
    if decision.get("policy") != policy_id:
        return "Nothing was decided on this policy, and it was never the champion of its loop."
    if decision["outcome"] == "pass":
        return "The gate lets this policy pass, and it was not promoted."
    return f"This policy was not promoted: the gate's outcome is {decision['outcome']}."


def _as_champion(entry: ChampionRecord, later: Sequence[ChampionRecord]) -> str:
    how = {
        "initial": "It starts its loop, and is the first champion",
        "promotion": f"Promoted by {_who(entry)}",
        "rollback": "Brought back by a rollback",
    }[entry.action]
    since = f"{how}, on {entry.at[:10]}."
    if not later:
        return since
    then = "It was rolled back" if later[0].action == "rollback" else f"{later[0].policy_id} took its place"
    return f"{since} {then} on {later[0].at[:10]}."


def _who(entry: ChampionRecord) -> str:
    return "the gate" if entry.by == GATE else "a person"


def _base(loop: LoopFolder) -> dict[str, str]:
    settings, kept = loop.config.base_model, loop.checkpoint("base_model")
    said = {
        "tiny": "a small model, trained from scratch by the loop",
        "folder": "a model from a folder",
        "hub": settings.name,
    }[settings.source]
    named = (settings.name, settings.revision) if settings.source == "hub" else ("", "")
    return {"said": said, "id": kept.model_id if kept else "", "name": named[0], "revision": named[1]}


def _data(loop: LoopFolder) -> Iterator[tuple[str, str]]:
    """How many records of each kind there are."""
    for asset, column in (("prompts", "prompt_id"), ("demonstrations", "demonstration_id")):
        table = loop.table(asset, columns=[column, "split"])
        if table is not None:
            yield asset, f"{len(table):,}, of which {(table['split'] == 'train').sum():,} to train on"


def _labels(loop: LoopFolder, report: dict[str, Any]) -> dict[str, Any]:
    """Usable labels behind the policy, by people and by machines, in all and by round; empty without a report."""
    counted = report.get("labels")
    if not counted:
        return {}
    promoted = {entry.round_key for entry in loop.registry.history() if entry.action == "promotion"}
    simulated = loop.config.has_task and loop.config.label_store.simulated_annotators
    rounds = [
        row | {"machine": row.get("machine", 0), "promoted": row["round"] in promoted} for row in counted["by_round"]
    ]
    total = {name: counted[name] for name in ("usable", "comparisons", "annotators")}
    who = SIMULATED_ANNOTATORS if simulated else "people"
    return {**total, "machine": counted.get("machine", 0), "by_round": rounds, "who": who}


def _win_rates(
    loop: LoopFolder, report: dict[str, Any], round_key: str, by_reward_model: bool
) -> Iterator[dict[str, Any]]:
    """Rows of judge, opponent, value and interval; people's own come from their judgments, which are the newest.

    ``by_reward_model`` says whether the policy was trained on the reward model, which flatters it then.
    """
    if not report:
        return
    human = loop.json("human_evaluation", round_key) or {}
    judged = human.get("win_rates", []) if human.get("policy_id") == report["policy_id"] else []
    measured = [rate for rate in report["win_rates"] if not (judged and rate["judge"] in PEOPLE)]
    for rate in [*judged, *measured]:
        if rate["value"] is not None and rate["against"] in _AGAINST:
            learned = " (which it was trained on)" if by_reward_model and rate["judge"] == REWARD_MODEL else ""
            yield rate | {"judge": rate["judge"] + learned, "against": _AGAINST[rate["against"]]}


def _figures(report: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Further estimates with an interval."""
    policy = report.get("policies", {}).get("policy", {})
    for name, figure in (
        ("sequence KL to the SFT policy, in nats", policy.get("kl")),
        ("perplexity on pretraining text, as a multiple of the SFT policy's", report.get("alignment_tax")),
        ("gap between reward models of other labels", report.get("reward_drift")),
    ):
        if figure and figure.get("value") is not None:
            yield name, figure
