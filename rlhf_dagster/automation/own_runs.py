"""Which of an instance's runs are a loop's: another loop's, and a team's own, are none of its business."""

import dagster as dg

from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import LOOP_TAG

ALIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def alive_runs(instance: dg.DagsterInstance, loop: LoopFolder) -> list[dg.RunRecord]:
    """The runs of a loop that have not ended, the newest first."""
    records = instance.get_run_records(dg.RunsFilter(statuses=ALIVE))
    return [record for record in records if is_run_of(record.dagster_run, loop)]


def is_run_of(run: dg.DagsterRun, loop: LoopFolder) -> bool:
    """Whether a run is a loop's: by the assets that were chosen for it, or else by its tag, or else by its job.

    A run of assets may be of several loops, and its tag names one; runs of version 0.1 have no tag.
    """
    jobs = job_assets(loop.config)
    if run.asset_selection:
        own = {loop.names.path(asset) for assets in jobs.values() for asset in assets}
        return any(tuple(key.path) in own for key in run.asset_selection)
    if tag := run.tags.get(LOOP_TAG):
        return tag == loop.run_tag[LOOP_TAG]
    return run.job_name in {loop.names.own(job) for job in jobs}


def require_none_at_work(instance: dg.DagsterInstance, loop: LoopFolder, round_key: str = "") -> None:
    """Raise UserError while assets of a loop, or only those of a round, are being made."""
    for run in (record.dagster_run for record in alive_runs(instance, loop)):
        makes_assets = run.asset_selection or run.job_name in {loop.names.own(job) for job in job_assets(loop.config)}
        of_round = run.tags.get("dagster/partition", "")
        if makes_assets and round_key in ("", of_round):
            where = f" of {of_round}" if of_round else ""
            raise UserError(f"{run.job_name}{where} is at work (run {run.run_id[:8]}): wait until it ends.")
