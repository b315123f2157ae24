"""A round of a tiny loop for trials with faults: `train_round` in this process, and what it must leave."""

import os
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import yaml

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.failures import sentence
from rlhf_dagster.automation.instance import open_instance, prepare_home
from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.cli.loops import run_job
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common.files import disk_errors_in_sentences
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.files import check_files
from rlhf_dagster.loop.upkeep.references import check_journals, check_ledger_rows, check_models, check_registry
from rlhf_dagster.records.ids import content_hash

ROUND, JOB = "round-0001", "train_round"
CONFIG: dict[str, Any] = {
    "name": "faults",
    "seed": 3,
    "data": {"prompts": 200, "demonstrations": 60, "pretraining_texts": 120},
    "base_model": {"tiny": {"layers": 1, "width": 16, "heads": 2, "steps": 10}},
    "sampling": {"response_tokens": 8},
    "sft": {"epochs": 1},
    "labeling": {"comparisons_per_round": 24, "held_out_annotators": 0.25},
    "reward_model": {"epochs": 1, "normalisation_samples": 16, "accept_chance": True},
    "ppo": {"updates": 2, "batch_size": 8, "minibatches": 1, "epochs": 1},
    "evaluation": {"prompts": 12, "human_judgments": 12},
    "gate": {"min_win_rate": 0.0, "max_kl": 1000, "min_distinct": 0.0, "max_length_ratio": 1000, "min_judgments": 5},
    "compute": {"threads": 1, "launch": "in_process", "device": "cpu", "checkpoint_seconds": 0},
}
"""States are written at every step, and every candidate passes the gate."""
NO_LOGS = """
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
"""
"""For Dagster's instance: it would start two processes for each asset that copy what is printed."""
_WHEN = ("created_at", "updated_at", "promoted_at", "seconds", "usage", "reported_at", "time", "at")
"""Fields and columns that say when something was done, or what it cost."""


def make_collected(root: Path) -> None:
    """A loop whose first round is collected and labelled."""
    root.mkdir(parents=True)
    (root / CONFIG_FILE).write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    with (prepare_home(root) / "dagster.yaml").open("a", encoding="utf-8") as file:
        file.write(NO_LOGS)
    runner = LoopRunner.open(LoopFolder.open(root))
    for job, key in (("prepare", None), ("collect_round", ROUND)):
        if key:
            open_next_round(runner.instance, runner.loop)
        outcome = runner.run(job, key)
        if not outcome.success:
            raise SystemExit(f"{job} fails by itself: {outcome.failure}")


def trained_assets(root: Path) -> list[str]:
    """What `rlhf run train_round` makes in a loop, upstream first."""
    return job_assets(LoopFolder.open(root).config)[JOB]


def train_round(root: Path, until: str | None = None) -> None:
    """Do as `rlhf run train_round` does. Raises UserError where that ends with a sentence."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), disk_errors_in_sentences():
        run_job(JOB, root, ROUND, until, again=False)


def raw_failures(root: Path) -> list[str]:
    """Errors of assets and checks that are no sentence, in the runs of a loop."""
    loop = LoopFolder.open(root)
    with open_instance(loop) as instance:
        events = [entry.dagster_event for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    failed = [event for event in events if event is not None and event.is_step_failure]
    return [f"{event.step_key}: {sentence(event)}" for event in failed if not event.step_failure_data.user_failure_data]


def damages(root: Path) -> list[str]:
    """What `rlhf check` finds, but for what a killed process was writing."""
    loop = LoopFolder.open(root)
    checks = (check_files, check_journals, check_registry, check_models, check_ledger_rows)
    return [finding.sentence for check in checks for finding in check(loop)]


def digests(root: Path) -> dict[str, str]:
    """What a round has made, without when: a digest of each table, report, decision and model, and the champions."""
    loop = LoopFolder.open(root)
    made = {asset: _digest(loop, asset) for asset in trained_assets(root)}
    ledger = loop.label_store.state()
    champions = [entry.policy_id for entry in loop.registry.history()]
    return made | {"champions": " ".join(champions), "annotations": str(ledger.annotations)}


def _digest(loop: LoopFolder, asset: str) -> str:
    table, content = loop.table(asset, ROUND), loop.json(asset, ROUND)
    model = loop.checkpoint(asset, ROUND) if content and "model_id" in content else None
    if model is not None:
        return f"{model.model_id} {model.digest} {model.folder.name}"
    kept = None if table is None else table.drop(columns=[name for name in _WHEN if name in table])
    return content_hash(None if kept is None else kept.to_json(), _without_when(content))


def _without_when(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _without_when(value) for name, value in content.items() if name not in _WHEN}
    return [_without_when(value) for value in content] if isinstance(content, list) else content
