"""What became of each round, read from the loop's folder."""

from dataclasses import replace
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.evaluation.report import JUDGES
from rlhf_dagster.evaluation.win_rate import SFT, find_win_rate
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.store import LabelCounts
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import evaluated_policy
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder


def round_rows(loop: LoopFolder, rounds: list[str]) -> list[dict[str, Any]]:
    """One row for each round, with None for what the round has not reached yet."""
    return [_round_row(loop, key) for key in rounds]


def _round_row(loop: LoopFolder, key: str) -> dict[str, Any]:
    manifest, report, human = (loop.json(name, key) for name in ("round_manifest", "eval_report", "human_evaluation"))
    decision = loop.decision(key)
    counts = _counts(loop, key)
    row: dict[str, Any] = {
        "round": key,
        "behaviour_policy": manifest and manifest["behaviour_policy"],
        "comparisons": counts.comparisons,
        "labels": counts.labels,
        "reward_model": _reward_model(loop, key),
        "policy": _policy(loop, key, report, human),
        "promoted": bool(decision and decision["promoted"]),
        "reasons": decision["reasons"] if decision else [],
        "report": report and _relative(loop, "eval_report", key, "html"),
    }
    if counts.machine:
        row["labels_by_machines"] = counts.machine
    if counts.notices:
        row["notices"] = counts.notices
    if report and decision is None:
        early = decide(loop, report, None)
        row["reasons"] = [] if early.passed else early.reasons
    return row


def _counts(loop: LoopFolder, key: str) -> LabelCounts:
    """Counts of a round's labels; of those read before, with a notice, where the label server gives none."""
    store = loop.label_store
    if isinstance(store, EmbeddedLabelStore):
        return store.count(key, "train")
    try:
        return store.count(key, "train")
    except UserError as error:
        counts = store.count_on_record(key, "train")
        return replace(counts, notices=[*counts.notices, f"{key} shows the labels that were read before. {error}"])


def _reward_model(loop: LoopFolder, key: str) -> dict[str, Any] | None:
    figures = loop.json("reward_model_accuracy", key)
    if figures is None:
        return None
    splits = figures["splits"]
    others, people = splits.get("validation"), splits.get("held_out_annotators")
    shown = people or others
    quality = loop.json("label_quality", key)
    return {
        "checkpoint": _checkpoint(loop, "reward_model", key),
        "accuracy": others and others["accuracy"],
        "held_out_annotators": people and people["accuracy"],
        "length_baseline": shown and shown["length_baseline"],
        "brevity_baseline": shown and shown.get("brevity_baseline"),
        "annotators_agreement": quality and quality["summary"]["agreement"],
    }


def _policy(
    loop: LoopFolder, key: str, report: dict[str, Any] | None, human: dict[str, Any] | None
) -> dict[str, Any] | None:
    if report is None:
        return None
    rates = [*report["win_rates"], *(human["win_rates"] if human else [])]
    rate, figures = find_win_rate(rates, JUDGES, SFT) or {}, report["policies"]["policy"]
    return {
        "checkpoint": _path(evaluated_policy(loop, key, report["policy_id"])),
        "kl": figures["kl"]["value"],
        "win_rate_vs_sft": {name: rate.get(name) for name in ("value", "low", "high", "n", "judge")},
        "win_rates": rates,
        **{name: figures[name] for name in ("copying", "rouge", "truthfulness") if figures.get(name)},
    }


def champion(loop: LoopFolder) -> dict[str, Any] | None:
    """The champion's id and checkpoint, relative to the loop's folder."""
    current = loop.registry.champion()
    if current is None:
        return None
    return {"policy": current.policy_id, "checkpoint": loop.policy(current.policy_id).path}


def _checkpoint(loop: LoopFolder, asset: str, key: str) -> str | None:
    return _path(loop.checkpoint(asset, key))


def _path(model: Checkpoint | None) -> str | None:
    return None if model is None else model.path


def _relative(loop: LoopFolder, asset: str, key: str, suffix: str) -> str:
    return loop.asset_key(asset, key, suffix)
