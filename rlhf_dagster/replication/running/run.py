"""Run one variant: the loop's own jobs, step by step, and its probes; only what is not there."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import dagster as dg

from rlhf_dagster.assets.rounds import add_partition
from rlhf_dagster.automation.execution import execute
from rlhf_dagster.automation.headlines import asset_line
from rlhf_dagster.build import build_loop
from rlhf_dagster.common.progress import describe, listening
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.probes.kept import take_probe
from rlhf_dagster.replication.running.requests import RunRequest, WorkerMessage
from rlhf_dagster.replication.running.seconds import add_seconds
from rlhf_dagster.replication.variants.beginnings import begin, begin_from, keep_beginning
from rlhf_dagster.replication.variants.made import Made, any_made
from rlhf_dagster.replication.variants.steps import Step, cut_after, first_steps

Speak = Callable[[WorkerMessage], None]

_SHOWN_NUMBERS = 3
"""How many of a training's numbers are passed on with each step; its first ones are the ones to watch."""


def run_variant(request: RunRequest, say: Speak) -> None:
    """Take a variant to its end, saying each asset that is made.

    Raises UserError with the sentence of the asset or the probe that failed.
    """
    loop = _open(request)
    run = _VariantRun(loop, _RunWatch(loop.root, say))
    steps = list(cut_after(request.steps, request.keep))
    with listening(run.watch.progress):
        for place, step in enumerate(steps):
            run.make(step)
            _keep(request, loop, steps[: place + 1], steps[place + 1 :], say)
        for probe in request.probes:
            run.watch.timed(probe.name, partial(take_probe, loop, probe))


def _open(request: RunRequest) -> LoopFolder:
    if request.begin_from and not request.folder.exists():
        begin_from(request.begin_from, request.folder, request.settings, request.anew)
    begin(request.folder, request.settings)
    return LoopFolder.open(request.folder)


def _keep(request: RunRequest, loop: LoopFolder, done: Sequence[Step], ahead: Sequence[Step], say: Speak) -> None:
    """Keep the loop as a beginning where it is one now, and nothing of what comes later is made."""
    asset = done[-1].assets[-1]
    if asset in request.keep and first_steps(done, asset) == list(done) and not any_made(loop, ahead):
        keep_beginning(loop, request.keep[asset])
        say(WorkerMessage("kept", asset))


@dataclass
class _RunWatch:
    """Passes on what happens in this process, and adds up the seconds of each asset in the loop's folder."""

    folder: Path
    say: Speak
    round_key: str = ""
    _started: dict[str, float] = field(default_factory=dict)

    def event(self, event: dg.DagsterEvent) -> None:
        asset = (event.step_key or "").split(".")[0]
        if event.event_type == dg.DagsterEventType.STEP_START:
            self._start(asset)
        elif event.event_type == dg.DagsterEventType.ASSET_MATERIALIZATION:
            self._done(asset, asset_line(asset, event.step_materialization_data.materialization.metadata))

    def progress(self, stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        shown = describe(dict(list(numbers.items())[:_SHOWN_NUMBERS]))
        self.say(WorkerMessage("progress", stage, self.round_key, shown, step=step, total=total))

    def timed(self, name: str, make: Callable[[], bool]) -> None:
        """Call ``make``, which says whether it had to do anything."""
        self.round_key = ""
        self._start(name)
        if make():
            self._done(name, "")

    def _start(self, name: str) -> None:
        self._started[name] = time.monotonic()
        self.say(WorkerMessage("started", name, self.round_key))

    def _done(self, name: str, text: str) -> None:
        seconds = time.monotonic() - self._started.get(name, time.monotonic())
        add_seconds(self.folder, name, seconds)
        self.say(WorkerMessage("made", name, self.round_key, text, seconds))


@dataclass
class _VariantRun:
    loop: LoopFolder
    watch: _RunWatch

    @cached_property
    def definitions(self) -> dg.Definitions:
        return build_loop(self.loop.config, self.loop.root)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """In memory: what is there says the loop's store."""
        return dg.DagsterInstance.ephemeral()

    @cached_property
    def made(self) -> Made:
        return Made(self.loop, self.definitions.resolve_asset_graph())

    def make(self, step: Step) -> None:
        """Make the missing assets of a step; that the gate refuses a policy is a result."""
        self.watch.round_key = step.round_key or ""
        if step.round_key:
            add_partition(self.instance, self.loop, step.round_key)
        missing = self.made.missing(step)
        if not missing.assets:
            return
        outcome = execute(self.definitions, self.instance, step.job, step.round_key, missing.assets, self.watch.event)
        if not (outcome.success or outcome.stopped_by_gate):
            where = " of ".join(filter(None, (outcome.failed_asset or step.job, step.round_key)))
            raise UserError(f"{where} failed: {outcome.failure}")
        self.made.add(missing)
