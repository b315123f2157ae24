"""`rlhf demo`: the whole loop on a task, through Dagster."""

import json
import shlex
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console

from rlhf_dagster.assets.rounds import add_partition, open_rounds
from rlhf_dagster.automation.instance import prepare_home
from rlhf_dagster.automation.pages import write_page
from rlhf_dagster.cli.console import RunView, terminal
from rlhf_dagster.cli.output import sentence_of
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.cli.tables import rounds_table, why_not
from rlhf_dagster.common.files import keep_from_others
from rlhf_dagster.common.functions import from_folder
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig
from rlhf_dagster.config.text import commented_yaml
from rlhf_dagster.data.task_settings import DEFAULT_TASK, task_settings
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.summary import champion, round_rows
from rlhf_dagster.pages.server import ROUNDS_PAGE
from rlhf_dagster.records.round_keys import round_key
from rlhf_dagster.storage.known import is_remote

SUMMARY = "summary.json"


def run_demo(out: Path, n_rounds: int, seed: int, quiet: bool = False, task: str = "") -> dict[str, Any]:
    """Run ``n_rounds`` rounds in the folder ``out`` and return the summary, which is also written there.

    ``task`` is a name for :func:`~rlhf_dagster.tasks.known.get_task`; empty: that of the folder, or `sentiment`.
    """
    if n_rounds < 1:
        raise UserError(f"--rounds {n_rounds}: at least 1 round is needed.")
    if seed < 0:
        raise UserError(f"--seed {seed}: a seed is 0 or more.")
    console = terminal(quiet)
    loop = open_demo(out, seed, task)
    runner = LoopRunner.open(loop)
    console.print(
        f"RLHF on the task `{loop.config.data.task}`: {n_rounds} rounds, seed {seed}, everything under {out}/",
        highlight=False,
    )
    view = RunView(console)
    with view.watching():
        _run(runner, view, "prepare", None)
        for number in range(1, n_rounds + 1):
            key = round_key(number)
            add_partition(runner.instance, loop, key)
            _run(runner, view, "collect_round", key)
            _run_training(runner, view, key)
    summary = _write_summary(loop, runner.instance)
    write_page(runner.instance, loop)
    _show(console, out, loop.address if is_remote(loop.address) else str(out), summary)
    return summary


def open_demo(out: Path, seed: int, task: str = "") -> LoopFolder:
    """The demo in ``out``, which is made where there is none; raises UserError where it is another one.

    The path of a task's file is relative to the current directory.
    """
    path, named = out / CONFIG_FILE, from_folder(task, Path.cwd())
    if path.exists():
        return _same_demo(LoopFolder.open(out), out, seed, named)
    settings = task_settings(named or DEFAULT_TASK)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not a demo's folder; choose another --out.")
    text = commented_yaml({"name": settings["name"], "seed": seed} | settings)
    keep_from_others(LoopConfig().readable_by)
    prepare_home(out)
    path.write_text(text, encoding="utf-8")
    return LoopFolder.open(out)


def _same_demo(loop: LoopFolder, out: Path, seed: int, task: str) -> LoopFolder:
    used, its_task = loop.config.seed, loop.config.data.task
    if used != seed:
        raise UserError(f"{out} holds a demo with seed {used}; give --seed {used} to go on, or another --out.")
    if task not in ("", its_task):
        raise UserError(
            f"{out} holds a demo of the task `{its_task}`; leave --task out to go on, or give another --out."
        )
    return loop


def _run(runner: LoopRunner, view: RunView, job: str, key: str | None) -> None:
    assets = runner.missing(job, key)
    view.say(f"{job}{f' {key}' if key else ''}{'' if assets else ': done before'}", style="bold")
    if not assets:
        return
    outcome = runner.run(job, key, assets, view.event)
    if not (outcome.success or outcome.stopped_by_gate):
        raise UserError(f"{outcome.failed_asset or job} failed: {sentence_of(outcome.failure)}")


def _run_training(runner: LoopRunner, view: RunView, key: str) -> None:
    """A round whose policy the gate's check stopped is done: that is a result, not a failure."""
    if round_rows(runner.loop, [key])[0]["reasons"]:
        view.say(f"train_round {key}: done before", style="bold")
        return
    _run(runner, view, "train_round", key)


def _write_summary(loop: LoopFolder, instance: dg.DagsterInstance) -> dict[str, Any]:
    sft = loop.checkpoint("sft_checkpoint")
    keys = open_rounds(instance, loop)
    summary = {
        "task": loop.config.data.task,
        "seed": loop.config.seed,
        "rounds": round_rows(loop, keys),
        "champion": champion(loop),
        "sft": sft and {"policy": sft.model_id, "checkpoint": sft.path},
        "seconds": {"total": _total_seconds(instance), **_step_seconds(instance)},
    }
    (loop.root / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _total_seconds(instance: dg.DagsterInstance) -> float:
    """Seconds of all runs that ended by themselves, those of earlier calls included."""
    spans = [(record.start_time, record.end_time) for record in instance.get_run_records() if record.end_time]
    return round(sum(end - start for start, end in spans if start and end), 1)


def _step_seconds(instance: dg.DagsterInstance) -> dict[str, float]:
    """Seconds of each stage over all rounds, by Dagster's own clock of the successful steps."""
    totals: dict[str, float] = {}
    for run in reversed(instance.get_runs()):
        for step in instance.get_run_step_stats(run.run_id):
            if step.status and step.status.value == "SUCCESS" and step.start_time and step.end_time:
                asset = step.step_key.split(".")[0]
                totals[asset] = round(totals.get(asset, 0.0) + step.end_time - step.start_time, 1)
    return totals


def _show(console: Console, out: Path, store: str, summary: dict[str, Any]) -> None:
    console.print()
    console.print(rounds_table(summary["rounds"]))
    for sentence in why_not(summary["rounds"]):
        console.print(sentence, highlight=False, soft_wrap=True)
    last, folder = summary["rounds"][-1], shlex.quote(str(out))
    console.print(f"Took {summary['seconds']['total']:.0f} s.", highlight=False)
    for label, what in (
        ("champion", f"{store}/{summary['champion']['checkpoint']}  (open it with transformers)"),
        ("report", f"{store}/{last['report']}"),
        ("all rounds", f"{store}/{ROUNDS_PAGE}"),
        ("numbers", str(out / SUMMARY)),
        ("look around", f"rlhf ui --loop {folder}"),
        ("another round", f"rlhf demo --out {folder} --seed {summary['seed']} --rounds {len(summary['rounds']) + 1}"),
    ):
        console.print(f"  {label:<14} {what}", highlight=False, soft_wrap=True)
