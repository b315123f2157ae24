"""What to do after judgments were imported."""

import dagster as dg

from rlhf_dagster.assets.rounds import open_import_round
from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.loop.folder import LoopFolder


def open_imported(instance: dg.DagsterInstance, loop: LoopFolder) -> list[str]:
    """Open the round of imported judgments; returns the commands that take what was imported into it."""
    key = open_import_round(instance, loop)
    jobs, path = job_assets(loop.config), loop.names.path
    prepared = all(instance.get_latest_materialization_event(dg.AssetKey(path(one))) for one in jobs["prepare"])
    commands = [] if prepared else [f"rlhf run prepare {loop.option}"]
    for job in ("collect_round", "train_round"):
        # Without --again a job keeps what is materialised, even if it was made from fewer judgments.
        made = any(key in instance.get_materialized_partitions(dg.AssetKey(path(one))) for one in jobs[job])
        commands.append(f"rlhf run {job} --round {key} {loop.option}{' --again' if made else ''}")
    return commands
