"""The loop that a variant is with a seed: its settings, and the name of its folder."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

from rlhf_dagster.common.version import __version__
from rlhf_dagster.config.base import overlaid
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.data.task_settings import task_settings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.replication.base import Probe, Variant
from rlhf_dagster.replication.probes.known import find_probe
from rlhf_dagster.replication.variants.steps import Step, steps_of, taken_over, without

ONE_THREAD = {"compute": {"threads": 1}}
"""Several variants run side by side, and the same number of threads gives the same numbers on every machine."""


@dataclass(frozen=True)
class VariantLoop:
    """A variant with a seed."""

    variant: Variant
    seed: int

    @property
    def title(self) -> str:
        return f"{self.variant.name}, seed {self.seed}"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Of its `loop.yaml`: those of the task, those of the variant over them, and the seed."""
        own = dict(self.variant.settings)
        if "seed" in own:
            raise UserError(f"The variant {self.variant.name} sets `seed`, which every repetition has of its own.")
        return overlaid(overlaid(_task_settings(self.variant.task), ONE_THREAD), own) | {"seed": self.seed}

    @cached_property
    def config(self) -> LoopConfig:
        text = json.dumps(self.settings, sort_keys=True)
        config = _parsed(text, f"The settings of the variant {self.variant.name}")
        if not (config.has_task and config.label_store.simulated_annotators):
            raise UserError(f"The variant {self.variant.name} would wait for people; it needs simulated annotators.")
        return config

    @cached_property
    def all_steps(self) -> Sequence[Step]:
        """To its end, in this order. Raises UserError where the variant ends after an asset that it does not have."""
        return steps_of(self.config, self.variant)

    @cached_property
    def steps(self) -> Sequence[Step]:
        """What it may have to make: all steps, unless it makes its beginning :attr:`~Variant.anew` in part only."""
        if not self.variant.anew:
            return self.all_steps
        return without(self.all_steps, taken_over(self.all_steps, self.variant))

    @cached_property
    def source(self) -> "VariantLoop | None":
        """The loop whose beginning it takes over."""
        return VariantLoop(self.variant.forks, self.seed) if self.variant.forks else None

    @cached_property
    def probes(self) -> Sequence[Probe]:
        """Its probes; raises UserError where there is no such probe, or one is there twice: they are read by name."""
        names = [probe.name for probe in self.variant.probes]
        if twice := [name for name in names if names.count(name) > 1]:
            raise UserError(f"The variant {self.variant.name} has two probes {twice[0]}; it can have each once.")
        for name in names:
            find_probe(name)
        return tuple(self.variant.probes)

    @cached_property
    def identity(self) -> str:
        """A hash of all that decides what the loop becomes; what it forks counts only where it cannot make it itself.

        The release counts too: another one may compute something else.
        """
        steps = [[step.round_key, *step.assets] for step in self.steps]
        takes = (
            [self.source.identity, self.variant.after, *self.variant.anew] if self.source and self.variant.anew else []
        )
        return content_hash("variant", __version__, self.config.model_dump(mode="json"), steps, *takes)

    @property
    def folder_name(self) -> str:
        return f"{self.variant.name}-{self.seed}-{self.identity}"


# Claims name the same variants again and again.
@cache
def _task_settings(task: str) -> dict[str, Any]:
    return task_settings(task)


@cache
def _parsed(settings: str, whose: str) -> LoopConfig:
    return LoopConfig.parse(json.loads(settings), whose)
