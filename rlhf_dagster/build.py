"""From a config to Dagster definitions: assets, checks, jobs, schedule, sensors and resources of one loop."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from rlhf_dagster.assets.graph import loop_assets, loop_checks
from rlhf_dagster.automation.jobs import loop_jobs
from rlhf_dagster.automation.pages import SPEC as PAGE_SPEC
from rlhf_dagster.automation.sensors import loop_automation
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.resources.compute import Compute
from rlhf_dagster.resources.io_managers import JsonFiles, ModelPointers, ParquetFiles
from rlhf_dagster.resources.notifier import Notifier


def build_loop(config: LoopConfig, root: Path, resources: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Everything Dagster needs for one loop. A code location holds one loop.

    Args:
        config: the loop's settings.
        root: the folder for the loop's tables, models and label store; it need not exist yet.
        resources: replace the loop's own resources of the same names: `compute` (a
            :class:`~rlhf_dagster.resources.compute.Compute`), `notifier`
            (:class:`~rlhf_dagster.resources.notifier.Notifier`), `loop`
            (:class:`~rlhf_dagster.loop.folder.LoopFolder`), or the io managers `tables`, `json` and `models`, which
            must go on writing to the loop's store, where steps look for the files of other rounds.

    Returns:
        Assets, checks, jobs, schedule, sensors and resources; add your own with `dg.Definitions.merge`.

    Raises:
        UserError: a resource has a name that nothing in the loop asks for.
    """
    assets = loop_assets(config)
    owned = [asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=[config.owner])) for asset in assets]
    schedules, sensors = loop_automation(config)
    return dg.Definitions(
        assets=[*owned, PAGE_SPEC.replace_attributes(owners=[config.owner])],
        asset_checks=loop_checks(),
        jobs=loop_jobs(config),
        schedules=schedules,
        sensors=sensors,
        resources=_replaced(_own_resources(config, root.resolve()), resources or {}),
        executor=dg.in_process_executor,
    )


def _own_resources(config: LoopConfig, root: Path) -> dict[str, Any]:
    loop = LoopFolder(config, root)
    address = loop.address
    return {
        "loop": loop,
        "tables": ParquetFiles(address),
        "json": JsonFiles(address),
        "models": ModelPointers(address),
        "compute": Compute.of(config.compute),
        "notifier": Notifier(
            kind=config.automation.notify,
            variable=config.automation.notify_variable,
            channel=config.automation.slack_channel,
        ),
    }


def _replaced(own: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(given.keys() - own.keys()):
        raise UserError(f"A loop has no resource `{unknown[0]}` to replace; it has {', '.join(own)}.")
    return own | dict(given)
