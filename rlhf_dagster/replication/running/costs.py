"""What a plan costs on this machine, before it starts and while it runs."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import round_number
from rlhf_dagster.replication.probes.kept import probe_is_taken
from rlhf_dagster.replication.running.estimates import asset_seconds, probe_seconds
from rlhf_dagster.replication.running.plan import VariantWork
from rlhf_dagster.replication.variants.made import is_made, key_of
from rlhf_dagster.replication.variants.steps import first_steps

MEASURED_RATE = 1200.0
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
    _estimates: dict[str, float] = field(default_factory=dict)
    """Of each work as it was when it was first asked about, by the name of its folder."""
    _expected: float = 0.0
    _spent: float = 0.0

    def of(self, work: VariantWork) -> float:
        name = work.folder.name
        if name not in self._estimates:
            self._estimates[name] = sum(seconds for _, seconds in missing_parts(work)) / self.speed
        return self._estimates[name] * (self._spent / self._expected if self._expected else 1.0)

    def learn(self, work: VariantWork, spent: Mapping[str, float]) -> None:
        """From the seconds of a work that is done, by asset and probe.

        Those of the base model say nothing: it is in the cache, or not.
        """
        counted = [(name, seconds) for name, seconds in parts_of_work(work) if name != "base_model" and name in spent]
        self._expected += sum(seconds for _, seconds in counted) / self.speed
        self._spent += sum(spent[name] for name in {name for name, _ in counted})

    def left(self, works: Sequence[VariantWork], processes: int) -> float:
        """Seconds until all works are done in so many processes: no shorter than the longest way through them."""
        alone = sum(map(self.of, works))
        return max([alone / processes, *(self._way(work, works) for work in works)], default=0.0)

    def _way(self, work: VariantWork, works: Sequence[VariantWork]) -> float:
        source = work.begins_from
        return self.of(work) + (self._way(source, works) if source is not None and source in works else 0.0)


def parts_of_work(work: VariantWork) -> Iterator[tuple[str, float]]:
    """The assets and probes that a work makes itself, with their seconds by the table."""
    config = work.loop.config
    for key, asset in _own_assets(work):
        yield asset, asset_seconds(asset, config, _number(key))
    for probe in work.probes:
        yield probe.name, probe_seconds(probe, config)


def missing_parts(work: VariantWork) -> Iterator[tuple[str, float]]:
    """Those of :func:`parts_of_work` that are not there yet."""
    config, loop = work.loop.config, LoopFolder(work.loop.config, work.folder)
    for key, asset in _own_assets(work):
        if not is_made(loop, asset, key_of(asset, key)):
            yield asset, asset_seconds(asset, config, _number(key))
    for probe in work.probes:
        if not probe_is_taken(work.folder, probe):
            yield probe.name, probe_seconds(probe, config)


def _own_assets(work: VariantWork) -> Iterator[tuple[str | None, str]]:
    """With their round; without those that are taken over."""
    taken_over = first_steps(work.loop.steps, work.begins_after) if work.begins_from else []
    there = {(step.round_key, asset) for step in taken_over for asset in step.assets}
    own = [(step.round_key, asset) for step in work.steps for asset in step.assets]
    yield from (one for one in own if one not in there)


def _number(round_key: str | None) -> int:
    return (round_number(round_key) or 1) if round_key else 1
