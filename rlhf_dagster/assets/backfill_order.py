"""Rounds of a backfill go one after another, the oldest first: a later one learns from the labels of those before."""

import time

import dagster as dg

from rlhf_dagster.errors import UserError

PARTITION_TAG, BACKFILL_TAG = "dagster/partition", "dagster/backfill"
_RANGE_START, _RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
ONE_ROUND_A_RUN = dg.BackfillPolicy.multi_run(max_partitions_per_run=1)
"""Without it Dagster launches the rounds of a backfill of assets in no order."""
_LOOK_EVERY = 5.0
"""Seconds between two looks at the runs of a backfill."""
_BEGUN = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
_NOT_BEGUN = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED]


def round_of_run(run: dg.DagsterRun) -> str:
    """The round that a run is about; empty without one. A backfill of assets names it in other tags than a job's.

    Raises UserError for a run of several rounds.
    """
    first, last = run.tags.get(_RANGE_START, ""), run.tags.get(_RANGE_END, "")
    if first != last:
        raise UserError(f"A run is of one round, and this one of {first} to {last}: launch a run for each.")
    return run.tags.get(PARTITION_TAG) or first


def wait_for_older_rounds(context: dg.AssetExecutionContext) -> None:
    """Wait until the older rounds of the run's backfill are done, with success or without.

    Raises UserError where one of them has not begun: it may be waiting for this run's place.
    """
    while older := _older(context, [*_BEGUN, *_NOT_BEGUN]):
        first = older[0]
        if first.status in _NOT_BEGUN:
            raise UserError(
                f"{context.partition_key} learns from the labels of {round_of_run(first)} too, which this backfill has "
                f"not begun. Launch it again after run {first.run_id[:8]}, or limit `dagster/backfill` to one run at a "
                "time in dagster.yaml."
            )
        context.log.info(f"{context.partition_key} waits for {round_of_run(first)} (run {first.run_id[:8]}).")
        _pause(context)


def _older(context: dg.AssetExecutionContext, statuses: list[dg.DagsterRunStatus]) -> list[dg.DagsterRun]:
    """Unfinished runs of the same backfill of older rounds, the oldest round first."""
    backfill = context.run.tags.get(BACKFILL_TAG)
    if not backfill:
        return []
    runs = context.instance.get_runs(dg.RunsFilter(tags={BACKFILL_TAG: backfill}, statuses=statuses))
    older = [run for run in runs if "" < round_of_run(run) < context.partition_key]
    return sorted(older, key=round_of_run)


def _pause(context: dg.AssetExecutionContext) -> None:
    """Wait a little; a run that is cancelled meanwhile ends."""
    time.sleep(_LOOK_EVERY)
    run = context.instance.get_run_by_id(context.run.run_id)
    if run is not None and (run.status == dg.DagsterRunStatus.CANCELING or run.is_finished):
        raise dg.DagsterExecutionInterruptedError
