"""What a person sees while jobs run: a line for each asset, with a bar for the one at work."""

import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rlhf_dagster.automation.headlines import asset_line
from rlhf_dagster.cli.output import PatientOutput
from rlhf_dagster.common.progress import describe, listening
from rlhf_dagster.records.loop_names import asset_of_step

SHOWN_NUMBERS = 3
"""How many of a stage's numbers are shown; its first ones are the ones to watch."""
_LINE_EVERY = 15.0
"""Seconds between progress lines where there is no terminal to draw a bar on."""


def terminal(quiet: bool = False) -> Console:
    """A console on a copy of standard output: Dagster redirects the original while a step runs, to keep its prints.

    Work that is shown goes on where the output is lost.
    """
    try:
        copy = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
        file = PatientOutput(copy, encoding=sys.stdout.encoding, errors=sys.stdout.errors, line_buffering=True)
        return Console(file=file, quiet=quiet)
    except OSError:  # standard output is not a file, as under a test runner
        return Console(quiet=quiet)


def progress_bars(console: Console, width: int) -> Progress:
    """Bars with room for ``width`` letters of what they show; a task's `tail` stands behind its bar."""
    return Progress(
        TextColumn(f"  {{task.description:<{width}}}"),
        BarColumn(24),
        TextColumn("{task.fields[tail]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class RunView:
    """Listens to Dagster's events and the stages' progress."""

    def __init__(self, console: Console):
        self.console = console
        self._bars = progress_bars(console, 24)
        # One bar for all assets: a display that shrinks to nothing leaves the cursor in the wrong place.
        self._bar = self._bars.add_task("", total=None, tail="")
        self._last_line = 0.0
        self._started: dict[str, float] = {}
        self._warned: set[str] = set()

    @contextmanager
    def watching(self) -> Iterator["RunView"]:
        with self._bars, listening(self.progress):
            yield self

    def say(self, line: str, style: str | None = None) -> None:
        """A line above the bar; a file gets it unwrapped (soft wrapping in a terminal would run into the bar)."""
        self.console.print(line, style=style, highlight=False, soft_wrap=not self.console.is_terminal)

    def event(self, event: dg.DagsterEvent) -> None:
        asset = asset_of_step(event.step_key)
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._start(asset)
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._done(asset, event.step_materialization_data.materialization.metadata)
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            # Where a blocking check fails, its step fails too, which needs no second line.
            self._started.pop(asset, None)
            self._check(event.asset_check_evaluation_data)
        elif event.event_type == dg.DagsterEventType.STEP_FAILURE and asset in self._started:
            self.say(f"  {asset:<24} [red]failed[/red]")

    def _check(self, check: dg.AssetCheckEvaluation) -> None:
        verdict = "passed" if check.passed else f"failed: {check.description}"
        if check.blocking:
            self.say(f"  {check.check_name:<24} {verdict}")
        elif not check.passed and not self._is_said(check.description or ""):
            self.say(f"- {check.check_name}: {check.description}", style="yellow")

    def _is_said(self, text: str) -> bool:
        """Whether nothing is left of a text without the warnings that assets have given."""
        for sentence in self._warned:
            text = text.replace(sentence, "")
        return not text.strip()

    def progress(self, stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        of = f" of {total}" if total else ""
        tail = f"{step}{of}{describe(dict(list(numbers.items())[:SHOWN_NUMBERS]))}"
        self._bars.update(self._bar, completed=step, total=total or None, tail=tail)
        if not self.console.is_terminal and time.monotonic() - self._last_line > _LINE_EVERY:
            self._last_line = time.monotonic()
            self.say(f"    {stage}: {tail}")

    def _start(self, asset: str) -> None:
        self._started[asset] = self._last_line = time.monotonic()
        self._bars.reset(self._bar, description=asset, total=None, tail="")

    def _done(self, asset: str, metadata: Mapping[str, dg.MetadataValue]) -> None:
        seconds = time.monotonic() - self._started.get(asset, time.monotonic())
        self.say(f"  {asset:<24} {seconds:6.1f} s  {asset_line(asset, metadata)}")
        if "warnings" in metadata:
            listed = f"{metadata['warnings'].value}"
            self._warned |= {line.removeprefix("- ") for line in listed.splitlines()}
            self.say(listed, style="yellow")
