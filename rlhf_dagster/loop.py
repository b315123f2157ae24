"""From a config to Dagster definitions: assets, checks, jobs and resources of one loop."""

from pathlib import Path

import dagster as dg

from rlhf_dagster.assets import data, evaluation, models, policy, preferences, release, reward
from rlhf_dagster.automation.jobs import loop_jobs
from rlhf_dagster.config import LoopConfig
from rlhf_dagster.loop_folder import LoopFolder
from rlhf_dagster.resources.io_managers import JsonFiles, ModelPointers, ParquetFiles

ASSET_MODULES = [data, models, preferences, reward, policy, evaluation, release]


def build_loop(config: LoopConfig, root: Path) -> dg.Definitions:
    """Everything Dagster needs for one loop whose files live in ``root``. A code location holds one loop."""
    folder = str(root.resolve())
    assets = [asset for asset in dg.load_assets_from_modules(ASSET_MODULES) if isinstance(asset, dg.AssetsDefinition)]
    owned = [asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=[config.owner])) for asset in assets]
    return dg.Definitions(
        assets=owned,
        asset_checks=dg.load_asset_checks_from_modules([evaluation]),
        jobs=loop_jobs(config),
        resources={
            "loop": LoopFolder(config, root.resolve()),
            "tables": ParquetFiles(root=folder),
            "json": JsonFiles(root=folder),
            "models": ModelPointers(root=folder),
        },
        executor=dg.in_process_executor,
    )
