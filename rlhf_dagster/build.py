"""From a config to Dagster definitions: assets, checks, jobs, schedule, sensors and resources of one loop."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from rlhf_dagster.assets.graph import loop_assets, loop_checks
from rlhf_dagster.automation.device_tags import require_known_tags
from rlhf_dagster.automation.interventions.known import intervention_jobs
from rlhf_dagster.automation.jobs import loop_jobs
from rlhf_dagster.automation.pages import page_spec
from rlhf_dagster.automation.sensors import loop_automation
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import ALONE, LoopNames, asset_of
from rlhf_dagster.resources.compute import Compute
from rlhf_dagster.resources.io_managers import JsonFiles, ModelPointers, ParquetFiles
from rlhf_dagster.resources.notifier import Notifier

Translate = Callable[[dg.AssetSpec], dg.AssetSpec]
"""From the spec of a loop's asset to the one that it is to have."""


def build_loop(
    config: LoopConfig,
    root: Path,
    resources: Mapping[str, Any] | None = None,
    names: LoopNames = ALONE,
    get_asset_spec: Translate | None = None,
) -> dg.Definitions:
    """Everything Dagster needs for one loop.

    Args:
        config: the loop's settings.
        root: the folder for the loop's tables, models and label store; it need not exist yet.
        resources: replace the loop's own resources of the same names: `compute` (a
            :class:`~rlhf_dagster.resources.compute.Compute`), `notifier`
            (:class:`~rlhf_dagster.resources.notifier.Notifier`), `loop`
            (:class:`~rlhf_dagster.loop.folder.LoopFolder`), or the io managers `tables`, `json` and `models`, which
            must go on writing to the loop's store, where steps look for the files of other rounds.
        names: by which the loop stands beside other loops and other assets; without them it has the plain names of a
            loop that is alone.
        get_asset_spec: from the spec of each asset to another one, with a key of its own (whose last part must stay),
            group, owners, tags, automation condition, description or metadata. What an asset depends on, and its
            partitions, stay.

    Returns:
        Assets, checks, jobs, schedule, sensors and resources; add your own with `dg.Definitions.merge`. The executor
        is that of the code location.

    Raises:
        UserError: a resource has a name that nothing in the loop asks for, a key does not end in its asset, or `tags`
            say of Kubernetes what dagster-k8s does not know.
    """
    require_known_tags(config.tags)
    named = name_assets(config, names, get_asset_spec)
    schedules, sensors = loop_automation(config, named.names)
    own = _own_resources(LoopFolder(config, root.resolve(), named.names))
    replaced = _replaced(own, resources or {})
    return dg.Definitions(
        assets=named.assets,
        asset_checks=loop_checks(named.names),
        jobs=[*loop_jobs(config, named.names), *intervention_jobs(config, named.names)],
        schedules=schedules,
        sensors=sensors,
        resources={named.names.own(name): resource for name, resource in replaced.items()},
    )


@dataclass(frozen=True)
class NamedAssets:
    """A loop's assets as they appear, and its names with the keys that some were moved to."""

    assets: Sequence[dg.AssetsDefinition | dg.AssetSpec]
    names: LoopNames


def name_assets(config: LoopConfig, names: LoopNames, get_asset_spec: Translate | None = None) -> NamedAssets:
    """Build the assets, and let ``get_asset_spec`` change what may change; raises UserError where it may not."""
    assets = _owned(config, names)
    if get_asset_spec is None:
        return NamedAssets(assets, names)
    wanted = {asset_of(spec.key.path): get_asset_spec(spec) for spec in _specs(assets)}
    moved = tuple(path for asset, spec in wanted.items() if (path := _path(asset, spec)) != names.path(asset))
    if moved:
        names = replace(names, moved=moved)
        assets = _owned(config, names)
    return NamedAssets(_mapped(assets, lambda spec: _changed(spec, wanted[asset_of(spec.key.path)])), names)


def _owned(config: LoopConfig, names: LoopNames) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    assets: list[dg.AssetsDefinition | dg.AssetSpec] = [*loop_assets(config, names), page_spec(names)]
    return _mapped(assets, lambda spec: spec.replace_attributes(owners=[config.owner]))


def _mapped(
    assets: Iterable[dg.AssetsDefinition | dg.AssetSpec], change: Translate
) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    return [change(asset) if isinstance(asset, dg.AssetSpec) else asset.map_asset_specs(change) for asset in assets]


def _specs(assets: Iterable[dg.AssetsDefinition | dg.AssetSpec]) -> list[dg.AssetSpec]:
    return [spec for asset in assets for spec in ([asset] if isinstance(asset, dg.AssetSpec) else asset.specs)]


def _path(asset: str, spec: dg.AssetSpec) -> tuple[str, ...]:
    path = tuple(spec.key.path)
    if asset_of(path) != asset:
        raise UserError(
            f"The key of {asset} was changed to {spec.key.to_user_string()}; only what stands before its last part may "
            "change."
        )
    return path


def _changed(spec: dg.AssetSpec, wanted: dg.AssetSpec) -> dg.AssetSpec:
    return wanted.replace_attributes(deps=spec.deps, partitions_def=spec.partitions_def)


def _own_resources(loop: LoopFolder) -> dict[str, Any]:
    address, automation = loop.address, loop.config.automation
    return {
        "loop": loop,
        "tables": ParquetFiles(address),
        "json": JsonFiles(address),
        "models": ModelPointers(address),
        "compute": Compute.of(loop.config.compute),
        "notifier": Notifier(
            kind=automation.notify, variable=automation.notify_variable, channel=automation.slack_channel
        ),
    }


def _replaced(own: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    if unknown := sorted(given.keys() - own.keys()):
        raise UserError(f"A loop has no resource `{unknown[0]}` to replace; it has {', '.join(own)}.")
    loop = given.get("loop", own["loop"])
    if loop.names != own["loop"].names:
        raise UserError("The resource `loop` has not the names of the loop; make it with the same `names`.")
    return own | dict(given)
