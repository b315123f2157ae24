"""What a plan costs on this machine, before it starts and while it runs."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rlhf_dagster.records.round_keys import round_number
from rlhf_dagster.replication.running.estimates import asset_seconds, probe_seconds
from rlhf_dagster.replication.running.plan import VariantWork
from rlhf_dagster.replication.variants.steps import first_steps

MEASURED_RATE = 100.0
"""Rounds a second of :func:`measure_speed` on the machine of the estimates."""


def measure_speed(seconds: float = 1.0) -> float:
    """How fast one core of this machine is now, as a share of that of the estimates; takes so many seconds."""
    import numpy as np

    numbers = np.random.default_rng(0).standard_normal((256, 256)).astype(np.float32)
    rounds, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds or not rounds:
        numbers = np.tanh(numbers @ numbers.T / 256)
        rounds += 1
    return rounds / max(passed, 1e-9) / MEASURED_RATE


@dataclass
class Costs:
    """Seconds of one core that works take here, by estimate and by how far estimates were right so far."""

    speed: float
    """Of this machine (:func:`measure_speed`)."""
    _expected: float = 0.0
    _spent: float = 0.0

    def of(self, work: VariantWork) -> float:
        correction = self._spent / self._expected if self._expected else 1.0
        return self._estimate(work) * correction

    def learn(self, work: VariantWork, seconds: float) -> None:
        """From a work that took so many seconds as a whole."""
        self._expected += self._estimate(work)
        self._spent += seconds

    def left(self, works: Sequence[VariantWork], processes: int) -> float:
        """Seconds until all works are done in so many processes: no shorter than the longest way through them."""
        alone = sum(map(self.of, works))
        return max([alone / processes, *(self._way(work, works) for work in works)], default=0.0)

    def _way(self, work: VariantWork, works: Sequence[VariantWork]) -> float:
        source = work.begins_from
        return self.of(work) + (self._way(source, works) if source is not None and source in works else 0.0)

    def _estimate(self, work: VariantWork) -> float:
        return estimate(work) / self.speed


def estimate(work: VariantWork) -> float:
    """Seconds of the assets and probes that a work makes itself, by the table."""
    taken_over = first_steps(work.loop.steps, work.begins_after) if work.begins_from else []
    there = {(step.round_key, asset) for step in taken_over for asset in step.assets}
    own = [(step.round_key, asset) for step in work.steps for asset in step.assets]
    config = work.loop.config
    assets = sum(asset_seconds(asset, config, _number(key)) for key, asset in own if (key, asset) not in there)
    return assets + sum(probe_seconds(probe, config) for probe in work.probes)


def _number(round_key: str | None) -> int:
    return (round_number(round_key) or 1) if round_key else 1
