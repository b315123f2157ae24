"""What the schedule and the sensors look at: the loop's rounds, and Dagster's runs."""

from dataclasses import replace

import dagster as dg

from rlhf_dagster.assets.one_sentence import STOPPED_TAG
from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.decide import Attempt, Scene, Waiting
from rlhf_dagster.automation.own_runs import ALIVE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_state import RoundState, labels_used, undecided_rounds
from rlhf_dagster.records.round_keys import round_number

POSITION_TAG, WHY_TAG = "rlhf/labels_position", "rlhf/why"
LONGEST_REQUEST = 20.0
"""Seconds that a look at the label store may wait for one answer: Dagster gives up on a sensor after 60."""
_PARTITION, _WILL_RETRY = "dagster/partition", "dagster/will_retry"


def impatient(loop: LoopFolder) -> LoopFolder:
    """The loop with a label store that gives up on a slow server before Dagster gives up on the sensor."""
    store = loop.config.label_store
    limited = store.changed(timeout=min(store.timeout, LONGEST_REQUEST))
    return replace(loop, config=loop.config.changed(label_store=limited))


def rounds_in_progress(instance: dg.DagsterInstance, loop: LoopFolder) -> list[RoundState]:
    """Rounds that something is still to be done for, oldest first; partitions of other names are no rounds."""
    return undecided_rounds(loop, [key for key in open_rounds(instance, loop) if round_number(key) is not None])


def waiting_for(instance: dg.DagsterInstance, loop: LoopFolder, job: str, state: RoundState) -> Waiting:
    """A round with the newest run of ``job`` on it."""
    attempt = last_attempt(instance, loop, job, state.round)
    if job != "train_round" or attempt is None or not attempt.failed:
        return Waiting(state, attempt)
    if attempt.position <= labels_used(loop.json("eval_report", state.round)):
        # The training succeeded, and the run failed after it, as every run does whose policy the gate refuses.
        return Waiting(state, replace(attempt, failed=False))
    return Waiting(state, attempt, loop.label_store.count(state.round, "train", since=attempt.position))


def last_attempt(instance: dg.DagsterInstance, loop: LoopFolder, job: str, round_key: str) -> Attempt | None:
    """The newest run of a job on a round. One that is about to be retried counts as active."""
    runs = instance.get_runs(dg.RunsFilter(job_name=loop.names.own(job), tags={_PARTITION: round_key}), limit=1)
    if not runs:
        return None
    run = runs[0]
    active = run.status in ALIVE or (run.status == dg.DagsterRunStatus.FAILURE and run.tags.get(_WILL_RETRY) == "true")
    ended_badly, stopped = not active and run.status != dg.DagsterRunStatus.SUCCESS, STOPPED_TAG in run.tags
    position = int(run.tags.get(POSITION_TAG, 0))
    return Attempt(run.run_id, active, ended_badly and not stopped, position, ended_badly and stopped)


def active_run(instance: dg.DagsterInstance, loop: LoopFolder, job: str) -> str:
    """A sentence about an active run of a job, such as ``train_round of round-0002 is running (run 1a2b3c4d)``."""
    runs = instance.get_runs(dg.RunsFilter(job_name=loop.names.own(job), statuses=ALIVE), limit=1)
    if not runs:
        return ""
    status = "waiting for its turn" if runs[0].status == dg.DagsterRunStatus.QUEUED else "running"
    return f"{job} of {runs[0].tags.get(_PARTITION, '?')} is {status} (run {runs[0].run_id[:8]})"


def scene(instance: dg.DagsterInstance, loop: LoopFolder) -> Scene:
    active = [active_run(instance, loop, job) for job in ("collect_round", "train_round", "release_round")]
    return Scene(loop.registry.champion() is not None, [sentence for sentence in active if sentence])
