"""How an asset ends that cannot be made: with one sentence where the user can mend the cause."""

import functools
from collections.abc import Callable
from typing import Any

import dagster as dg

from rlhf_dagster.assets.backfill_order import PARTITION_TAG, round_of_run
from rlhf_dagster.common.files import disk_sentence
from rlhf_dagster.compute.work import TrainingDied, TrainingFailed
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.formats import prepare_store
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import require_not_deleted
from rlhf_dagster.loop.guards.place import require_in_place
from rlhf_dagster.records.loop_names import LOOP_TAG
from rlhf_dagster.records.round_keys import require_round_key
from rlhf_dagster.training.runtime.resuming import TrainingStopped

STOPPED_TAG = "rlhf/stopped"
"""Tag of runs that the stop cord has ended."""
RETRY_AFTER = 5
"""Seconds before a training whose process died is taken up again."""


def in_one_sentence(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Where the user can mend the cause, the asset fails with one sentence and without a stack trace.

    An asset of a stopped loop does not start. A training whose process died is taken up again from its last state.
    """

    @functools.wraps(compute)
    def run(*args: Any, **kwargs: Any) -> Any:
        loop: LoopFolder = kwargs["loop"]
        try:
            require_in_place(loop)
            prepare_store(loop.store)
            _mark_run(loop)
            _require_going(loop)
            _require_round(loop)
            return compute(*args, **kwargs)
        except (UserError, TrainingFailed) as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        except OSError as error:
            if not (sentence := disk_sentence(error)):
                raise
            raise dg.Failure(sentence, allow_retries=False) from None
        except TrainingStopped as stopped:
            _mark_stopped()
            raise dg.Failure(str(stopped), allow_retries=False) from None
        except TrainingDied as died:
            raise _retry(died, kwargs["compute"].retries) from None

    return run


def _mark_run(loop: LoopFolder) -> None:
    """Tag a run that was launched for assets alone, and so has not the tags of the loop's jobs."""
    context = dg.AssetExecutionContext.get()
    tags, key = context.run.tags, round_of_run(context.run)
    missing = {} if LOOP_TAG in tags else dict(loop.run_tag)
    missing |= {PARTITION_TAG: key} if key and PARTITION_TAG not in tags else {}
    if missing:
        context.instance.add_run_tags(context.run.run_id, missing)


def _require_going(loop: LoopFolder) -> None:
    if stop := read_stop(loop.store):
        raise TrainingStopped(stop.sentence)


def _require_round(loop: LoopFolder) -> None:
    """Raise UserError where the run's partition is no round, or a deleted one: the UI lets people add any."""
    if key := round_of_run(dg.AssetExecutionContext.get().run):
        require_round_key(key)
        require_not_deleted(loop, key)


def _mark_stopped() -> None:
    """Tell the sensors that this run did not fail: it may be launched again once the loop goes on."""
    context = dg.AssetExecutionContext.get()
    context.instance.add_run_tags(context.run.run_id, {STOPPED_TAG: "true"})


def _retry(died: TrainingDied, retries: int) -> Exception:
    context = dg.AssetExecutionContext.get()
    context.log.warning(str(died))
    if context.retry_number >= retries:
        return dg.Failure(f"{died}\nIt was tried {retries + 1} times; its last state is kept for the next.")
    return dg.RetryRequested(max_retries=retries, seconds_to_wait=RETRY_AFTER)
