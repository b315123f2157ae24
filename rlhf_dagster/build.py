"""From a config to Dagster definitions: assets, checks, jobs, schedule, sensors and resources of one loop."""

from pathlib import Path

import dagster as dg

from rlhf_dagster.assets import data, evaluation, models, policy, preferences, release, reward
from rlhf_dagster.automation.jobs import loop_jobs
from rlhf_dagster.automation.pages import SPEC as PAGE_SPEC
from rlhf_dagster.automation.sensors import loop_automation
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.resources.compute import Compute
from rlhf_dagster.resources.io_managers import JsonFiles, ModelPointers, ParquetFiles
from rlhf_dagster.resources.notifier import Notifier

ASSET_MODULES = [data, models, preferences, reward, policy, evaluation, release]


def build_loop(config: LoopConfig, root: Path) -> dg.Definitions:
    """Everything Dagster needs for one loop whose files live in ``root``. A code location holds one loop."""
    folder = str(root.resolve())
    assets = [asset for asset in dg.load_assets_from_modules(ASSET_MODULES) if isinstance(asset, dg.AssetsDefinition)]
    owned = [asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=[config.owner])) for asset in assets]
    schedules, sensors = loop_automation(config)
    return dg.Definitions(
        assets=[*owned, PAGE_SPEC.replace_attributes(owners=[config.owner])],
        asset_checks=dg.load_asset_checks_from_modules([evaluation]),
        jobs=loop_jobs(config),
        schedules=schedules,
        sensors=sensors,
        resources={
            "loop": LoopFolder(config, root.resolve()),
            "tables": ParquetFiles(root=folder),
            "json": JsonFiles(root=folder),
            "models": ModelPointers(root=folder),
            "compute": Compute.of(config.compute),
            "notifier": Notifier(
                kind=config.automation.notify,
                variable=config.automation.notify_variable,
                channel=config.automation.slack_channel,
            ),
        },
        executor=dg.in_process_executor,
    )
