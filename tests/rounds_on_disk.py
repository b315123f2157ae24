"""What rounds leave in a loop's folder, written by hand."""

import json
from pathlib import Path
from typing import Any

from loops import asset_path

from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.loop.folder import LoopFolder


def keep(loop: LoopFolder, policy: str, kind: str, round_key: str, **facts: Any) -> None:
    """A model's folder with a manifest of these facts and nothing that could be sampled."""
    folder = loop.root / "models" / policy
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"name": policy}), encoding="utf-8")
    write_manifest(folder, kind=kind, round_key=round_key, **facts)


def register(loop: LoopFolder, policy: str, round_key: str) -> None:
    keep(loop, policy, "ppo" if round_key else "sft", round_key)
    loop.registry.register(policy, f"models/{policy}", "ppo" if round_key else "sft", round_key)


def key(number: int) -> str:
    return f"round-{number:04d}"


def store(loop: LoopFolder, asset: str, round_key: str, content: dict[str, Any]) -> Path:
    path = asset_path(loop, asset, round_key, "json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def rate(value: float, n: int = 100) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "n": n}


def win(judge: str, against: str, value: float, n: int = 100) -> dict[str, Any]:
    return rate(value, n) | {"judge": judge, "against": against}


def report(policy: str, **changes: Any) -> dict[str, Any]:
    split = {"accuracy": rate(0.6), "length_baseline": rate(0.3)}
    figures = {
        "policy_id": policy,
        "policies": {"policy": {"kl": rate(6.0), "distinct": 1.0, "length": 10.0}, "sft": {"length": 10.0}},
        "reward_model": {"splits": {"validation": split}},
        "win_rates": [
            win("reward model", "sft", 0.9),
            win("reward model", "behaviour", 0.8),
            win("gold judge", "sft", 1),
        ],
        "labels": {"by_round": [{"round": key(1), "comparisons": 40, "labels": 50, "annotators": 4}]},
    }
    return figures | changes


def refuse(loop: LoopFolder, round_key: str, policy: str, reason: str = "Too long.") -> None:
    store(loop, "eval_report", round_key, report(policy))
    store(loop, "promotion", round_key, {"policy": policy, "promoted": False, "outcome": "fail", "reasons": [reason]})


def promote(loop: LoopFolder, round_key: str, policy: str) -> None:
    store(loop, "eval_report", round_key, report(policy))
    store(loop, "promotion", round_key, {"policy": policy, "promoted": True, "outcome": "pass", "reasons": []})
    register(loop, policy, round_key)
    assert loop.registry.promote(policy, round_key, by="gate", reason="every rule is met").promoted
