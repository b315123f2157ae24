"""Run jobs of a loop in this process, with somebody who listens to Dagster's events."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from rlhf_dagster.automation.failures import RunFailure, find_failure
from rlhf_dagster.records.loop_names import ALONE, LoopNames

EventListener = Callable[[dg.DagsterEvent], None]
_listener: EventListener | None = None


class _EventHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is not None and _listener is not None:
            _listener(event)


@dg.logger
def event_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """Hands Dagster's events to whoever runs the job in this process, and prints nothing."""
    logger = logging.Logger("rlhf_dagster.events", level=logging.DEBUG)
    logger.addHandler(_EventHandler())
    return logger


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


def with_listener(definitions: dg.Definitions) -> dg.Definitions:
    """The definitions with the logger through which :func:`execute` hands events on."""
    return dg.Definitions.merge(definitions, dg.Definitions(loggers={"events": event_logger}))


def execute(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    round_key: str | None = None,
    assets: Sequence[str] | None = None,
    listener: EventListener | None = None,
    tags: Mapping[str, str] | None = None,
    names: LoopNames = ALONE,
) -> RunOutcome:
    """Execute a job of definitions :func:`with_listener`, or some of its assets, for one round.

    ``names`` are those of the loop in the definitions; ``job`` and ``assets`` are what a loop alone calls them.
    """
    global _listener  # noqa: PLW0603  # Dagster builds the logger from its definition alone
    _listener = listener
    try:
        result = definitions.resolve_job_def(names.own(job)).execute_in_process(
            instance=instance,
            partition_key=round_key,
            asset_selection=[dg.AssetKey(names.path(asset)) for asset in assets] if assets else None,
            run_config={"loggers": {"events": {}}},
            tags=dict(tags or {}),
            raise_on_error=False,
        )
    finally:
        _listener = None
    return _outcome(result)


def _outcome(result: dg.ExecuteInProcessResult) -> RunOutcome:
    if result.success:
        return RunOutcome(result.run_id, success=True)
    failure = find_failure(result.all_events) or RunFailure(
        "", "the run failed before its first step; see its log in the UI"
    )
    return RunOutcome(result.run_id, False, failure.reason, failure.stage, stopped_by_gate=failure.by_gate)
