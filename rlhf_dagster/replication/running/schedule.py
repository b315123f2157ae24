"""Running the works of a plan side by side: one after the beginning that it takes over, the long way first."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rlhf_dagster.replication.running.plan import VariantWork
from rlhf_dagster.replication.running.pool import Pool
from rlhf_dagster.replication.running.requests import WorkerMessage

TRIES = 2
"""How often a work is tried whose process died, such as for lack of memory; it goes on where it was."""
WorkListener = Callable[[VariantWork, WorkerMessage], None]
Cost = Callable[[VariantWork], float]
"""Seconds that a work is expected to take."""


@dataclass
class Schedule:
    """Runs ``works``; what becomes of one changes nothing for the others, but for those that begin with it."""

    works: Sequence[VariantWork]
    pool: Pool
    cost: Cost
    listener: WorkListener
    failures: dict[str, str] = field(default_factory=dict)
    """By the folder's name of a work, why it failed."""
    _waiting: list[VariantWork] = field(default_factory=list)
    _running: dict[int, VariantWork] = field(default_factory=dict)
    _tries: dict[str, int] = field(default_factory=dict)

    def run(self) -> dict[str, str]:
        """Run all; returns :attr:`failures`."""
        self._waiting = sorted(self.works, key=self._way, reverse=True)
        while self._start() or self._running:
            number, said = self.pool.next()
            self._hear(number, self._running[number], said)
        return self.failures

    def _way(self, work: VariantWork) -> float:
        """Seconds from the start of a work to the end of the last that needs it."""
        after = [other for other in self.works if other.begins_from is work]
        return self.cost(work) + max(map(self._way, after), default=0.0)

    def _start(self) -> bool:
        """Give idle workers what can start; whether there was any."""
        self._give_up()
        ready = [work for work in self._waiting if work.waits_for() not in self._ahead()]
        started = False
        for work in ready:
            if not self.pool.has_room():
                break
            self._waiting.remove(work)
            self._running[self.pool.start(work.request())] = work
            started = True
        return started

    def _ahead(self) -> list[VariantWork]:
        """What may still keep a beginning; a work whose source is not among these makes its own."""
        return [*self._waiting, *self._running.values()]

    def _give_up(self) -> None:
        """Fail what begins with a work that failed before it had kept the beginning."""
        for work in list(self._waiting):
            source = work.waits_for()
            if source is not None and (why := self.failures.get(source.folder.name)):
                self._waiting.remove(work)
                self._fail(work, f"It begins as {source.title}, which failed: {why}")
                self._give_up()
                return

    def _hear(self, number: int, work: VariantWork, said: WorkerMessage | None) -> None:
        if said is None:
            del self._running[number]
            self._died(work)
            return
        if said.kind in ("done", "failed"):
            del self._running[number]
        if said.kind == "failed":
            self._fail(work, said.text)
        else:
            self.listener(work, said)

    def _died(self, work: VariantWork) -> None:
        tries = self._tries[work.folder.name] = self._tries.get(work.folder.name, 1) + 1
        if tries <= TRIES:
            self._waiting.insert(0, work)
        else:
            self._fail(work, f"The process that ran it died, {TRIES} times; is there enough memory for it?")

    def _fail(self, work: VariantWork, sentence: str) -> None:
        self.failures[work.folder.name] = sentence
        self.listener(work, WorkerMessage("failed", text=sentence))
