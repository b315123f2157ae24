"""What a person sees while jobs run: a line for each asset, with a bar for the one at work."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rlhf_dagster.progress import describe, listening

HEADLINES: dict[str, list[str]] = {
    "prompts": ["dagster/row_count"],
    "demonstrations": ["dagster/row_count"],
    "pretraining_text": ["dagster/row_count", "words"],
    "base_model": ["model_id", "from_cache", "validation_loss"],
    "sft_checkpoint": ["model_id", "validation_loss"],
    "round_manifest": ["behaviour_policy"],
    "completions": ["dagster/row_count", "prompts", "distinct_share"],
    "preference_batch": ["comparisons", "labels_wanted", "already_there"],
    "preference_labels": ["usable_labels", "annotators", "quarantined"],
    "label_quality": ["alpha", "agreement"],
    "preference_dataset": ["train_labels", "validation_labels", "held_out_annotators_labels"],
    "reward_model": ["model_id", "train_loss"],
    "reward_model_accuracy": ["accuracy_validation", "accuracy_held_out_annotators"],
    "ppo_policy": ["model_id", "reward", "kl"],
    "evaluation_completions": ["prompts"],
    "eval_report": ["win_rate_vs_sft_by_reward_model", "win_rate_vs_sft_by_gold_judge", "kl_nats"],
    "evaluation_batch": ["comparisons"],
    "human_evaluation": ["judgments", "win_rate_vs_sft", "win_rate_vs_behaviour"],
    "promotion": ["promoted", "champion"],
}
NAMES = {"dagster/row_count": "rows"}
SHOWN_NUMBERS = 3
"""A stage's first numbers are the ones to watch."""
LINE_EVERY = 15.0
"""Seconds between progress lines where there is no terminal to draw a bar on."""


class RunView:
    """Listens to Dagster's events and the stages' progress."""

    def __init__(self, console: Console):
        self.console = console
        self._bars = Progress(
            TextColumn("  {task.description:<24}"),
            BarColumn(24),
            TextColumn("{task.fields[tail]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._last_line = 0.0
        self._started: dict[str, float] = {}

    @contextmanager
    def watching(self) -> Iterator["RunView"]:
        with self._bars, listening(self.progress):
            yield self

    def event(self, event: dg.DagsterEvent) -> None:
        asset = (event.step_key or "").split(".")[0]
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._start(asset)
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._done(asset, event.step_materialization_data.materialization.metadata)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            # The step of a blocking check that fails fails too, which needs no second line.
            self._started.pop(asset, None)
            check = event.asset_check_evaluation_data
            self.console.print(
                f"  {check.check_name:<24} {'passed' if check.passed else 'FAILED'}: {check.description}",
                highlight=False,
                soft_wrap=True,
            )
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE and asset in self._started:
            self._clear()
            self.console.print(f"  {asset:<24} [red]failed[/red]")

    def progress(self, stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        tail = f"{step} of {total}{describe(dict(list(numbers.items())[:SHOWN_NUMBERS]))}"
        if self._bar is not None:
            self._bars.update(self._bar, completed=step, total=total, tail=tail)
        if not self.console.is_terminal and time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            self.console.print(f"    {stage}: {tail}", highlight=False)

    def _start(self, asset: str) -> None:
        self._clear()
        self._started[asset] = self._last_line = time.monotonic()
        self._bar = self._bars.add_task(asset, total=None, tail="")

    def _done(self, asset: str, metadata: Mapping[str, dg.MetadataValue]) -> None:
        self._clear()
        seconds = time.monotonic() - self._started.get(asset, time.monotonic())
        shown = [
            f"{NAMES.get(name, name).replace('_', ' ')} {_plain(metadata[name])}"
            for name in HEADLINES.get(asset, [])
            if name in metadata
        ]
        self.console.print(f"  {asset:<24} {seconds:6.1f} s  {', '.join(shown)}", highlight=False, soft_wrap=True)

    def _clear(self) -> None:
        if self._bar is not None:
            self._bars.remove_task(self._bar)
            self._bar = None


def _plain(value: dg.MetadataValue) -> str:
    plain = value.value
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:.3f}" if isinstance(plain, float) else f"{plain:,}" if isinstance(plain, int) else str(plain)
