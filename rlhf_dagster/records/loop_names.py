"""The names by which Dagster knows the parts of a loop, so that several loops and others' assets stand side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhf_dagster.errors import UserError

LOOP_TAG = "rlhf/loop"
"""Tag of a run: the loop that it works on."""
GPU_POOL = "gpu"
ROUNDS = "rounds"
_SEPARATOR = "__"
"""Between the parts of a name, as Dagster joins those of an asset's key: in names of its own it takes no slash."""
_PART = re.compile(r"[A-Za-z0-9]+(_[A-Za-z0-9]+)*")


@dataclass(frozen=True)
class LoopNames:
    """What a loop's assets, groups, jobs, schedule, sensors, partitions, pool and resources are called.

    Without a prefix they have the plain names of a loop that is alone on its instance. In a code location with others
    each loop has a prefix of its own: `("support",)` makes `support/prompts` of the asset `prompts`, and
    `support__train_round` of the job `train_round`.
    """

    prefix: tuple[str, ...] = ()
    pool: str = GPU_POOL
    """The pool of the steps that need a device. It stands for the devices, so that loops that share them share it."""
    moved: tuple[tuple[str, ...], ...] = ()
    """Keys that do not begin with the prefix, each by its parts; the last one is the asset's name."""
    said: str = field(default="", compare=False)
    """What commands take after `--loop`, as a shell reads it, where that is not the loop's folder."""

    def __post_init__(self) -> None:
        for part in self.prefix:
            if not _PART.fullmatch(part):
                raise UserError(
                    f"`key_prefix` holds {part!r}; a part is made of letters and digits, with single underscores "
                    "between them."
                )

    def path(self, asset: str) -> tuple[str, ...]:
        """The parts of an asset's key."""
        return next((path for path in self.moved if path[-1] == asset), (*self.prefix, asset))

    def own(self, name: str) -> str:
        """The name of a group, a job, a schedule, a sensor, a resource or the partitions."""
        return _SEPARATOR.join((*self.prefix, name))

    @property
    def rounds(self) -> str:
        """The name of the partitions."""
        return self.own(ROUNDS)

    def tag(self, name: str) -> dict[str, str]:
        """The tag of its runs; ``name`` is the one in its config, which a loop alone is known by."""
        return {LOOP_TAG: "/".join(self.prefix) or name}


ALONE = LoopNames()
"""The names of a loop that is alone on its instance."""


def asset_of(path: Sequence[str]) -> str:
    """The asset by the parts of its key, whichever loop's it is."""
    return path[-1]


def asset_of_step(step_key: str | None) -> str:
    """The asset, or the asset and its check, that a step makes; empty where there is no step."""
    return (step_key or "").split(".")[0].rpartition(_SEPARATOR)[2]
