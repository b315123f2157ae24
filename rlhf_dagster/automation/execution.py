"""Run jobs of a loop in this process, with somebody who listens to Dagster's events."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.utils import make_new_run_id

from rlhf_dagster.automation.failures import RunFailure, find_failure
from rlhf_dagster.records.loop_names import ALONE, LoopNames

EventListener = Callable[[dg.DagsterEvent], None]
REPOSITORY = "__repository__"
"""What Dagster calls that of a code location which names none."""
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class RunOutcome:
    """How a job went: the run, whether all of it succeeded, and the sentence of the first failure.

    ``stopped_by_gate`` says that all that failed is the gate's check, which is a result and not an error.
    """

    run_id: str
    success: bool
    failure: str = ""
    failed_asset: str = ""
    stopped_by_gate: bool = False


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    round_key: str | None = None,
    assets: Sequence[str] | None = None,
    listener: EventListener | None = None,
    tags: Mapping[str, str] | None = None,
    names: LoopNames = ALONE,
    location: str = "",
) -> RunOutcome:
    """Execute a job, or some of its assets, for one round.

    ``names`` are those of the loop in the definitions; ``job`` and ``assets`` are what a loop alone calls them.
    ``location`` is the code location in whose jobs, and in whose timeline, the UI lists the run.
    """
    run_id = make_new_run_id()
    if listener is not None:
        instance.add_event_listener(run_id, partial(_hear, listener))
    with _listed_in(instance, location, names.own(job)):
        result = definitions.resolve_job_def(names.own(job)).execute_in_process(
            instance=instance,
            run_id=run_id,
            partition_key=round_key,
            asset_selection=[dg.AssetKey(names.path(asset)) for asset in assets] if assets else None,
            run_config=_QUIET,
            tags=dict(tags or {}),
            raise_on_error=False,
        )
    return _outcome(result)


def _hear(listener: EventListener, entry: dg.EventLogEntry) -> None:
    if entry.dagster_event is not None:
        listener(entry.dagster_event)


@contextmanager
def _listed_in(instance: dg.DagsterInstance, location: str, job: str) -> Iterator[None]:
    """Say of the run that is made within where its job is: Dagster leaves that out of a run in this process."""
    if not location:
        yield
        return
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), REPOSITORY)
    create: Any = partial(instance.create_run_for_job, remote_job_origin=RemoteJobOrigin(repository, job))
    # A run may be made while another one is under way.
    outer = vars(instance).get("create_run_for_job")
    instance.create_run_for_job = create  # type: ignore[method-assign]
    try:
        yield
    finally:
        del instance.create_run_for_job
        if outer is not None:
            instance.create_run_for_job = outer  # type: ignore[method-assign]


def _outcome(result: dg.ExecuteInProcessResult) -> RunOutcome:
    if result.success:
        return RunOutcome(result.run_id, success=True)
    failure = find_failure(result.all_events) or RunFailure(
        "", "the run failed before its first step; see its log in the UI"
    )
    return RunOutcome(result.run_id, False, failure.reason, failure.stage, stopped_by_gate=failure.by_gate)
