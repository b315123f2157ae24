"""How the checks of an asset are declared: one step for all of them, of which each can be run by itself."""

import inspect
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import dagster as dg

from rlhf_dagster.assets.metadata import numbers
from rlhf_dagster.assets.rounds import rounds_of
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.checks.outcome import CheckOutcome, Look
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import LoopNames
from rlhf_dagster.resources.own_keys import with_own_resources


@dataclass(frozen=True)
class AssetLooks:
    """The checks of an asset of every loop, named for the functions that look."""

    asset: str
    looks: tuple[Look, ...]
    by_round: bool = True

    def of(self, names: LoopNames) -> dg.AssetChecksDefinition:
        """The checks of one loop."""
        with warnings.catch_warnings():
            # Partitions of checks are in preview.
            warnings.simplefilter("ignore", dg.PreviewWarning)
            specs = [self._spec(look, names) for look in self.looks]
        return dg.multi_asset_check(name=names.own(f"{self.asset}_checks"), specs=specs, can_subset=True)(
            with_own_resources(_running(self), names)
        )

    def _spec(self, look: Look, names: LoopNames) -> dg.AssetCheckSpec:
        return dg.AssetCheckSpec(
            look_name(look),
            asset=dg.AssetKey(names.path(self.asset)),
            description=inspect.getdoc(look),
            partitions_def=rounds_of(names) if self.by_round else None,
        )


def _running(one: AssetLooks) -> Callable[..., Iterator[dg.AssetCheckResult]]:
    """What the step does: look for each check that is selected, in their order."""

    def run(
        context: dg.AssetCheckExecutionContext, loop: dg.ResourceParam[LoopFolder]
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {check.name: check for check in context.selected_asset_check_keys}
        key = context.partition_key if one.by_round else ""
        for look in one.looks:
            if check := selected.get(look_name(look)):
                yield _result(check, _outcome(look, loop, key))

    return run


def look_name(look: Look) -> str:
    """The name of a check."""
    return look.__name__


def _outcome(look: Look, loop: LoopFolder, key: str) -> CheckOutcome:
    """What was found; that nothing can be looked at is a finding too, and stops no run."""
    try:
        return look(loop, key)
    except UserError as error:
        return CheckOutcome(False, str(error))


def _result(check: dg.AssetCheckKey, found: CheckOutcome) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=check.asset_key,
        check_name=check.name,
        passed=found.passed,
        severity=dg.AssetCheckSeverity.ERROR if found.wrong else dg.AssetCheckSeverity.WARN,
        description=found.sentence,
        metadata=numbers(found.figures),
    )
