"""Whether the instance limits the pool in which the steps of a loop wait for a device."""

import dagster as dg

from rlhf_dagster.assets.define import loop_check
from rlhf_dagster.loop.folder import LoopFolder


@loop_check("base_model")
def pool_is_limited(context: dg.AssetCheckExecutionContext, loop: dg.ResourceParam[LoopFolder]) -> dg.AssetCheckResult:
    """Whether the instance limits how many steps use a device at once; without a limit all do that are due."""
    problem = pool_problem(context.instance, loop.names.pool)
    return dg.AssetCheckResult(
        passed=not problem,
        severity=dg.AssetCheckSeverity.WARN,
        description=problem or f"The pool `{loop.names.pool}` has a limit.",
    )


def pool_problem(instance: dg.DagsterInstance, pool: str) -> str:
    """What is wrong with the limit of a pool, and what mends it; empty where nothing is."""
    settings = instance.get_concurrency_config().pool_config
    if settings.pool_granularity and settings.pool_granularity.value == "run":
        return (
            "This instance limits pools by run, so the steps of one run do not wait for each other; set "
            "`concurrency: {pools: {granularity: op}}` in its dagster.yaml."
        )
    storage = instance.event_log_storage
    limits = storage.get_pool_limits() if storage.supports_global_concurrency_limits else []
    if settings.default_pool_limit is not None or pool in {limit.name for limit in limits}:
        return ""
    return (
        f"This instance has no limit for the pool `{pool}`, so all steps that train or sample may run at once; set one "
        f"in the UI (Deployment > Concurrency), or by `dagster instance concurrency set {pool} 1`."
    )
