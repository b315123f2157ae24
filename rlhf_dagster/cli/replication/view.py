"""What a person sees while a replication runs: a line for each asset, a bar for each loop at work, the time left."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import TaskID

from rlhf_dagster.cli.console import progress_bars
from rlhf_dagster.replication.judging import Replication
from rlhf_dagster.replication.page.render import seeds_named
from rlhf_dagster.replication.running.costs import Costs
from rlhf_dagster.replication.running.plan import Plan, VariantWork
from rlhf_dagster.replication.running.requests import WorkerMessage
from rlhf_dagster.replication.running.seconds import read_seconds

_LINE_EVERY = 30.0
"""Seconds between lines about the progress of one loop where there is no terminal to draw bars on."""
_MINUTE = 60.0


class ReplicationView:
    """Listens to what the workers say."""

    def __init__(self, console: Console, plan: Plan, costs: Costs, jobs: int) -> None:
        self._console, self._plan, self._costs, self._jobs = console, plan, costs, jobs
        self._left = plan.unfinished()
        self._total, self._start = len(self._left), time.monotonic()
        self._bars = progress_bars(console, 40)
        self._bar_of: dict[str, TaskID] = {}
        self._last_line: dict[str, float] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        with self._bars:
            yield

    def say_cost(self, asked: Replication) -> None:
        """What is going to be run, and how long it takes."""
        claims = ", ".join(claim.name for claim in asked.claims)
        self._say(f"{claims} ({asked.size}, {seeds_named(asked.seeds)}), everything under {asked.out}/")
        for seeds, names in _with_more_seeds(asked).items():
            self._say(f"{seeds_named(seeds)} for {', '.join(names)}, whose policies differ more from seed to seed")
        done, cost = len(self._plan.works) - self._total, sum(map(self._costs.of, self._left))
        self._say(
            f"{len(self._plan.works)} loops, {done} done before; about {in_minutes(cost)} minutes of one core, "
            f"{in_minutes(self._costs.left(self._left, self._jobs))} in {self._jobs} processes"
        )

    def say_each(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._say(line)

    def heard(self, work: VariantWork, said: WorkerMessage) -> None:
        """A worker's message about a work."""
        if said.kind in ("started", "progress"):
            self._move(work, said)
        elif said.kind == "made":
            self._say(f"  {_of_round(work, said):<44} {said.what:<24} {said.seconds:6.1f} s  {said.text}")
        elif said.kind in ("done", "failed"):
            self._end(work, said)

    def _move(self, work: VariantWork, said: WorkerMessage) -> None:
        bar = self._bar_of.get(work.title)
        if bar is None:
            bar = self._bar_of[work.title] = self._bars.add_task("", total=None, tail="")
            self._last_line[work.title] = time.monotonic()
        tail = f"{said.what} {said.step} of {said.total}{said.text}" if said.total else said.what
        total = said.total or None
        self._bars.update(bar, description=_of_round(work, said), completed=said.step, total=total, tail=tail)
        self._line(work, tail)

    def _line(self, work: VariantWork, tail: str) -> None:
        if not self._console.is_terminal and time.monotonic() - self._last_line[work.title] > _LINE_EVERY:
            self._last_line[work.title] = time.monotonic()
            self._say(f"    {work.title}: {tail}")

    def _end(self, work: VariantWork, said: WorkerMessage) -> None:
        if bar := self._bar_of.pop(work.title, None):
            self._bars.remove_task(bar)
        self._left = [other for other in self._left if other is not work]
        if said.kind == "failed":
            self._say(f"{work.title} failed: {said.text}", style="red")
        else:
            self._costs.learn(work, read_seconds(work.folder))
        left = in_minutes(self._costs.left(self._left, self._jobs))
        done = self._total - len(self._left)
        self._say(f"{work.title}: {said.kind}, {done} of {self._total}; about {left} minutes left", style="bold")

    def _say(self, line: str, style: str | None = None) -> None:
        self._console.print(line, style=style, highlight=False, markup=False, soft_wrap=not self._console.is_terminal)


def in_minutes(seconds: float) -> str:
    """Seconds as minutes: whole ones from ten on."""
    minutes = seconds / _MINUTE
    return f"{minutes:.0f}" if minutes >= 10 else f"{minutes:.1f}"


def _of_round(work: VariantWork, said: WorkerMessage) -> str:
    return f"{work.title} {said.round_key}".rstrip()


def _with_more_seeds(asked: Replication) -> dict[range, list[str]]:
    """The claims that have other seeds than those asked for, by their seeds."""
    found: dict[range, list[str]] = {}
    for claim in asked.claims:
        if asked.seeds_of(claim) != asked.seeds:
            found.setdefault(asked.seeds_of(claim), []).append(claim.name)
    return found
