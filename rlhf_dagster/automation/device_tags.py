"""Tags by which run launchers and executors learn which steps and jobs need a device."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

import dagster as dg
from dagster._utils.tags import normalize_tags

from rlhf_dagster.assets.graph import device_assets
from rlhf_dagster.config.automation import TagSettings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError

KUBERNETES = "dagster-k8s/config"


def job_tags(config: LoopConfig, assets: Iterable[str]) -> Mapping[str, Any]:
    """Tags of a job that makes ``assets``: those of the config where one of them needs a device."""
    return {} if device_assets(config).isdisjoint(assets) else config.tags.jobs


def require_known_tags(tags: TagSettings) -> None:
    """Raise UserError where Kubernetes would be told what it does not know, if dagster-k8s is here to say so.

    Otherwise it is said when a run is launched.
    """
    for section, given in (("steps", tags.steps), ("jobs", tags.jobs)):
        if KUBERNETES in given and find_spec("dagster_k8s"):
            _require_known(f"tags.{section}", {KUBERNETES: given[KUBERNETES]})


def _require_known(where: str, tags: Mapping[str, Any]) -> None:
    from dagster_k8s.job import get_user_defined_k8s_config

    try:
        get_user_defined_k8s_config(normalize_tags(tags))
    except dg.DagsterInvalidConfigError as error:
        reason = error.errors[0].message.split("\n")[0]
        raise UserError(f"`{where}`: {KUBERNETES} is not as dagster-k8s reads it: {reason}") from None
