"""Simulated annotators who label at a given pace, in every round that still wants labels."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.pacing import come_and_go, gap
from rlhf_dagster.labeling.simulate import BATCH, find_work, judgment
from rlhf_dagster.labeling.store import LabelCounts, LabelStore, LabelStoreUnavailable
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_state import newest_promoted
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.tasks.base import SimulatedAnnotator

BATCHES = {"train": "preference_batch", "evaluation": "evaluation_batch"}
"""The asset that sends the comparisons of each purpose."""
_SENT_BY = {"train": "collect_round", "evaluation": "train_round"}
LOOK_AGAIN = 60.0
"""Seconds of work after which annotators look for other rounds."""
PAUSE = 5.0
"""Seconds before they look again where there is nothing to do, or where the label store does not answer."""

OpenBatch = tuple[str, str]
"""A round and a purpose."""
Say = Callable[[str], object]


@dataclass(frozen=True)
class Label:
    """A label to give."""

    batch: OpenBatch
    annotator: SimulatedAnnotator
    comparison: dict[str, Any]
    """A row of COMPARISONS."""


@dataclass
class Crew:
    """A loop's simulated annotators, who submit about ``per_minute`` labels a minute together, never more on average.

    Who judges what, and how, does not depend on the pace
    (:func:`rlhf_dagster.labeling.simulate.simulate_annotators`).
    """

    loop: LoopFolder
    per_minute: float | None = None
    """None: as fast as they can."""
    annotators: int | None = None
    """How many of the task's annotators; None: all."""
    sleep: Callable[[float], object] = time.sleep
    given: int = 0
    """Labels given so far."""
    _store: LabelStore | None = None
    _nothing_missing: dict[OpenBatch, LabelCounts] = field(default_factory=dict)

    @property
    def store(self) -> LabelStore:
        """The label store, opened once, so that annotators stay logged in."""
        self._store = self._store or self.loop.label_store
        return self._store

    def reconnect(self) -> None:
        """Have everybody log in anew: a server that was away may have lost accounts that were just made."""
        self._store = None

    def missing(self, batches: Iterable[OpenBatch]) -> list[Label]:
        """The labels that the batches want and do not have yet."""
        return [label for batch in batches for label in self._missing_of(batch)]

    def give(self, labels: Sequence[Label], seconds: float = LOOK_AGAIN) -> Counter[OpenBatch]:
        """Give labels until the waits before them add up to ``seconds``; returns how many were given in each batch."""
        done: Counter[OpenBatch] = Counter()
        waited, at_once = 0.0, 1 if self.per_minute else BATCH
        order = come_and_go(labels, lambda label: label.annotator.name, self._seed("sittings"))
        for start in range(0, len(order), at_once):
            if waited >= seconds:
                break
            waited += self._wait(order[start])
            now = order[start : start + at_once]
            settings = self.loop.config.labeling
            self.store.submit_many([judgment(label.annotator, label.comparison, settings) for label in now])
            done.update(label.batch for label in now)
            self.given += len(now)
        return done

    def _wait(self, label: Label) -> float:
        """Sleep before a label for as long as the pace asks; returns the seconds slept."""
        if not self.per_minute:
            return 0.0
        seconds = gap(self.per_minute, self._seed("pace"), label.comparison["comparison_id"], label.annotator.name)
        self.sleep(seconds)
        return seconds

    def _missing_of(self, batch: OpenBatch) -> list[Label]:
        counts = self.store.count(*batch)
        if counts.complete >= counts.comparisons or counts == self._nothing_missing.get(batch):
            return []
        work = find_work(self.store, self._people(), *batch, seed=self._seed("annotate", batch[0])).missing
        if not work:
            self._nothing_missing[batch] = counts
        return [Label(batch, annotator, comparison) for annotator, comparison in work]

    def _people(self) -> Sequence[SimulatedAnnotator]:
        return self.loop.annotators()[: self.annotators]

    def _seed(self, stage: str, key: str = "") -> int:
        return self.loop.config.stage_seed(stage, key)


def work_off(crew: Crew, batches: Sequence[OpenBatch], say: Say) -> None:
    """Give the labels that are missing in the batches; ends when there are none."""
    while labels := crew.missing(batches):
        _report(crew.give(labels), Counter(label.batch for label in labels), say)


def follow(crew: Crew, find_batches: Callable[[], Sequence[OpenBatch]], say: Say) -> None:
    """Give the labels missing in the batches that ``find_batches`` finds, again and again, until interrupted.

    While the label store does not answer, wait. Then look up which labels it has before giving any again: it may have
    kept some that it did not acknowledge.
    """
    away = False
    while True:
        try:
            labels = crew.missing(find_batches())
            if away:
                say("The label store answers again.")
                away = False
            _report(crew.give(labels), Counter(label.batch for label in labels), say)
        except LabelStoreUnavailable as error:
            if not away:
                say(f"{error} Waiting for it.")
            away, labels = True, []
            crew.reconnect()
        if not labels:
            crew.sleep(PAUSE)


def require_batch(loop: LoopFolder, round_key: str, purpose: str) -> None:
    """Raise UserError where a round has sent no comparisons of a purpose."""
    if not loop.has_table(BATCHES[purpose], round_key):
        raise UserError(
            f"{round_key} has nothing to {'label' if purpose == 'train' else 'judge'} yet; run `rlhf run "
            f"{_SENT_BY[purpose]} --round {round_key} {loop.option}` first."
        )


def open_batches(loop: LoopFolder, round_key: str | None, purposes: Iterable[str]) -> list[OpenBatch]:
    """The batches sent to annotators in the rounds after the newest promoted one, or in one round; oldest first."""
    promoted = newest_promoted(loop)
    found = [(key, purpose) for purpose in purposes for key in loop.rounds_with(BATCHES[purpose])]
    return sorted(
        (key, purpose)
        for key, purpose in found
        if key != IMPORT_ROUND and (key == round_key if round_key else key > promoted)
    )


def _report(given: Counter[OpenBatch], wanted: Counter[OpenBatch], say: Say) -> None:
    for batch, n in sorted(given.items()):
        say(f"{batch[0]}, {batch[1]}: {n:,} {'label' if n == 1 else 'labels'} given, {wanted[batch] - n:,} to go")
