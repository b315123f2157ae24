"""What a person sees while jobs run: a line for each asset, with a bar for the one at work."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rlhf_dagster.common.progress import describe, listening
from rlhf_dagster.config.arms import ARMS
from rlhf_dagster.training.texts.cuts import COUNTED

HEADLINES: dict[str, list[str]] = {
    "prompts": ["dagster/row_count"],
    "demonstration_batch": ["prompts"],
    "demonstrations": ["dagster/row_count", "left_out_of_test"],
    "pretraining_text": ["dagster/row_count", "words"],
    "base_model": ["model_id", "loss"],
    "sft_checkpoint": ["model_id", "validation_loss"],
    "round_manifest": ["behaviour_policy"],
    "completions": ["dagster/row_count", "prompts", "distinct_share"],
    "preference_batch": ["comparisons", "labels_wanted", "already_there"],
    "preference_labels": ["usable_labels", "annotators", "quarantined"],
    "label_quality": ["alpha", "agreement"],
    "preference_dataset": [
        "train_labels",
        "validation_labels",
        "held_out_annotators_labels",
        "not_trained_on",
        "why_not",
    ],
    "reward_model": ["model_id", "loss_train", "accuracy_validation"],
    "reward_model_accuracy": ["accuracy_validation", "accuracy_held_out_annotators"],
    "reward_model_halves": ["unmeasured", "accuracy_a", "accuracy_b"],
    **{arm.asset: list(arm.headline) for arm in ARMS if arm.asset},
    "policy_choice": ["arm", "policy_id", "prompts"],
    "evaluation_completions": ["prompts"],
    "eval_report": ["vs_sft_reward_model", "vs_sft_gold_judge", "kl_nats", "reward_drift"],
    "evaluation_batch": ["comparisons"],
    "human_evaluation": ["judgments", "win_rate_vs_sft", "win_rate_vs_behaviour"],
    "promotion": ["promoted", "outcome", "champion", "alarms", "removed_models"],
}
_NAMES = {
    "unmeasured": "none:",
    "why_not": "which are",
    "accuracy_a": "accuracy of half A",
    "accuracy_b": "of half B",
    "dagster/row_count": "rows",
    "vs_sft_reward_model": "win rate vs SFT by reward model",
    "vs_sft_gold_judge": "by gold judge",
}
SHOWN_NUMBERS = 3
"""How many of a stage's numbers are shown; its first ones are the ones to watch."""
_LINE_EVERY = 15.0
"""Seconds between progress lines where there is no terminal to draw a bar on."""


def terminal(quiet: bool = False) -> Console:
    """A console on a copy of standard output: Dagster redirects the original while a step runs, to keep its prints."""
    try:
        return Console(file=os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1), quiet=quiet)
    except OSError:  # standard output is not a file, as under a test runner
        return Console(quiet=quiet)


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
        # One bar for all assets: a display that shrinks to nothing leaves the cursor in the wrong place.
        self._bar = self._bars.add_task("", total=None, tail="")
        self._last_line = 0.0
        self._started: dict[str, float] = {}

    @contextmanager
    def watching(self) -> Iterator["RunView"]:
        with self._bars, listening(self.progress):
            yield self

    def say(self, line: str, style: str | None = None) -> None:
        """A line above the bar; a file gets it unwrapped (soft wrapping in a terminal would run into the bar)."""
        self.console.print(line, style=style, highlight=False, soft_wrap=not self.console.is_terminal)

    def event(self, event: dg.DagsterEvent) -> None:
        asset = (event.step_key or "").split(".")[0]
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._start(asset)
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._done(asset, event.step_materialization_data.materialization.metadata)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            # Where a blocking check fails, its step fails too, which needs no second line.
            self._started.pop(asset, None)
            check = event.asset_check_evaluation_data
            verdict = "passed" if check.passed else f"failed: {check.description}"
            self.say(f"  {check.check_name:<24} {verdict}")
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE and asset in self._started:
            self.say(f"  {asset:<24} [red]failed[/red]")

    def progress(self, stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        tail = f"{step} of {total}{describe(dict(list(numbers.items())[:SHOWN_NUMBERS]))}"
        self._bars.update(self._bar, completed=step, total=total, tail=tail)
        if not self.console.is_terminal and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self.say(f"    {stage}: {tail}")

    def _start(self, asset: str) -> None:
        self._started[asset] = self._last_line = time.monotonic()
        self._bars.reset(self._bar, description=asset, total=None, tail="")

    def _done(self, asset: str, metadata: Mapping[str, dg.MetadataValue]) -> None:
        seconds = time.monotonic() - self._started.get(asset, time.monotonic())
        shown = [
            f"{_NAMES.get(name, name).replace('_', ' ')} {_plain(metadata[name], name in COUNTED)}"
            for name in (*HEADLINES.get(asset, []), *COUNTED)
            if name in metadata
        ]
        self.say(f"  {asset:<24} {seconds:6.1f} s  {', '.join(shown)}")
        if "warnings" in metadata:
            self.say(f"{metadata['warnings'].value}", style="yellow")


def _plain(value: dg.MetadataValue, is_count: bool = False) -> str:
    plain = value.value
    if is_count and isinstance(plain, float):
        return f"{plain:,.0f}"
    if isinstance(plain, bool):
        return "yes" if plain else "no"
    return f"{plain:.3f}" if isinstance(plain, float) else f"{plain:,}" if isinstance(plain, int) else str(plain)
