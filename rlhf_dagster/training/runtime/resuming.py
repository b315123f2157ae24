"""The state of unfinished training: kept so that a retry goes on from it. Importing this imports no torch."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rlhf_dagster.config.base import LATER
from rlhf_dagster.lineage.model_folders import content_of
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.training.functions import decisive_reward, source_of
from rlhf_dagster.training.runtime.state_copies import StateCopies


class TrainingStopped(Exception):  # noqa: N818
    """The training stopped before it was finished; the message is the reason, and the state is on disk."""


def nobody() -> str:
    """A ``stop`` that never gives a reason."""
    return ""


class CutOff(Exception):  # noqa: N818
    """Another try has taken over this training: what this one has made is not kept."""


def always_own() -> None:
    """A ``require_own`` of trainings that nobody can take over while they run."""


@dataclass(frozen=True)
class Checkpointing:
    """Where unfinished training keeps its state, how often, and who can end it early."""

    folder: Path | None = None
    """None keeps no state."""
    every_seconds: float = 120.0
    """Time between two states; 0 writes one after every step (in PPO: every update)."""
    stop: Callable[[], str] = nobody
    """Called after every step but the last; where it gives a reason, a state is written and TrainingStopped raised."""
    copies: StateCopies | None = None
    """Where states go as well, so that another machine can go on from them; None where no other machine could."""
    require_own: Callable[[], None] = always_own
    """Called before a state gets its name; raises :class:`CutOff` where another try has taken the training over."""


KEEP_NOTHING = Checkpointing()


def fingerprint(spec: Any) -> str:
    """Hash of what decides a training's result: its spec without output and compute, and its inputs' content."""
    return content_hash("training", type(spec).__name__, decisive(spec))


def decisive(spec: Any) -> dict[str, str]:
    """What a training's result depends on, by field of its spec: a content hash for paths, the text of other values."""
    values = told_fields(spec)
    if function := values.get("reward_function"):
        values["reward_function"] = f"{function.rpartition(':')[2]} {source_of(function)}"
    if reward := values.pop("reward", None):
        values["reward"] = decisive_reward(reward)
    return {name: content_of(value) if isinstance(value, Path) else str(value) for name, value in values.items()}


def told_fields(spec: Any) -> dict[str, Any]:
    """What a training is told, by field of its spec: all but output, compute and where answers are kept, and
    fields that came later than version 0.1 (marked `later`) only where they are given."""
    told = (part for part in fields(spec) if part.name not in ("output", "compute", "answers"))
    values = ((part, getattr(spec, part.name)) for part in told)
    return {part.name: value for part, value in values if part.metadata != LATER or value != part.default}


def clear(checkpointing: Checkpointing) -> None:
    """Remove the state, once the training's output is where it belongs."""
    if checkpointing.folder is not None:
        shutil.rmtree(checkpointing.folder, ignore_errors=True)
