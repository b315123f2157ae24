"""What of a variant's steps is made already, by the files in the loop's store: a variant has no records of Dagster."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg

from rlhf_dagster.automation.jobs import PREPARE, RELEASE
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.evaluation import decide
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.replication.variants.steps import Step
from rlhf_dagster.resources.io_managers import TABLES

_AFTER_THE_GATE = ("evaluation_batch", *RELEASE)
"""What a round has not whose policy the gate refused."""


@dataclass
class Made:
    """What is there, and what was made again by this process, after which whatever depends on it is made again too."""

    loop: LoopFolder
    graph: Any
    """Dagster's graph of all assets, which it does not export."""
    _anew: set[tuple[str, str]] = field(default_factory=set)
    """Assets with their round, empty for none."""

    def missing(self, step: Step) -> Step:
        """The step with the assets that must be made."""
        outdated: list[str] = []
        for asset in step.assets:
            if not is_made(self.loop, asset, key_of(asset, step.round_key)) or self._is_older(asset, step, outdated):
                outdated.append(asset)
        if set(outdated) <= set(_AFTER_THE_GATE) and _is_refused(self.loop, step.round_key):
            return replace(step, assets=[])
        return replace(step, assets=outdated)

    def add(self, step: Step) -> None:
        """Take down that a step's assets were made now."""
        self._anew |= {(asset, key_of(asset, step.round_key)) for asset in step.assets}

    def _is_older(self, asset: str, step: Step, outdated: Sequence[str]) -> bool:
        earlier = [key for _, key in self._anew if key and step.round_key and key < step.round_key]
        parents = [key.path[-1] for key in self.graph.get(dg.AssetKey(asset)).parent_keys]
        return bool(earlier) or any(
            parent in outdated or (parent, key_of(parent, step.round_key)) in self._anew for parent in parents
        )


def is_made(loop: LoopFolder, asset: str, round_key: str) -> bool:
    """Whether an asset's file is in the store, with the model that it points to."""
    if asset in TABLES:
        return loop.has_table(asset, round_key)
    try:
        content = loop.json(asset, round_key)
        return content is not None and ("digest" not in content or loop.pointed_to(content).is_there())
    except UserError:  # damaged: making it again mends it
        return False


def all_made(loop: LoopFolder, steps: Sequence[Step]) -> bool:
    """Whether nothing of the steps is missing."""
    return all(is_made(loop, asset, key) for asset, key in _wanted(loop, steps))


def any_made(loop: LoopFolder, steps: Sequence[Step]) -> bool:
    """Whether something of the steps is there."""
    return any(is_made(loop, asset, key) for asset, key in _wanted(loop, steps))


def _wanted(loop: LoopFolder, steps: Sequence[Step]) -> Iterator[tuple[str, str]]:
    for step in steps:
        refused = _is_refused(loop, step.round_key)
        yield from (
            (asset, key_of(asset, step.round_key))
            for asset in step.assets
            if not (refused and asset in _AFTER_THE_GATE)
        )


def key_of(asset: str, round_key: str | None) -> str:
    """The round under which an asset is kept that is made in a round; empty for one that belongs to none."""
    return "" if asset in PREPARE else round_key or ""


def _is_refused(loop: LoopFolder, round_key: str | None) -> bool:
    report = loop.json("eval_report", round_key) if round_key else None
    return report is not None and not decide(loop, report, None).passed
