"""What went wrong in a run, in one sentence; and the sensor that tells somebody."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import dagster as dg

from rlhf_dagster.assets.evaluation import may_be_promoted
from rlhf_dagster.assets.one_sentence import STOPPED_TAG
from rlhf_dagster.automation.own_runs import is_run_of
from rlhf_dagster.config.automation import AutomationSettings
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.loop_names import ALONE, LoopNames, asset_of, asset_of_step
from rlhf_dagster.resources.notifier import Notifier
from rlhf_dagster.resources.own_keys import with_own_resources

_WILL_RETRY = "dagster/will_retry"


@dataclass(frozen=True)
class RunFailure:
    """``stage`` is the asset that failed, empty where the run failed before or between assets."""

    stage: str
    reason: str
    by_gate: bool = False
    """All that failed is the gate's check, which is a result and not an error."""
    stopped: bool = False
    """The stop cord ended the run."""


def find_failure(events: Iterable[dg.DagsterEvent]) -> RunFailure | None:
    """The first failure among a run's events."""
    for event in events:
        if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check = event.asset_check_evaluation_data
            if not check.passed and check.blocking:
                by_gate = may_be_promoted.is_of(check.asset_check_key)
                return RunFailure(asset_of(check.asset_key.path), check.description or "", by_gate)
        if event.is_step_failure:
            return RunFailure(asset_of_step(event.step_key), sentence(event))
    return None


def sentence(event: dg.DagsterEvent) -> str:
    """A user's sentence where there is one, otherwise the innermost error's text."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else "no reason given"


def failed_runs(settings: AutomationSettings, names: LoopNames = ALONE) -> dg.SensorDefinition:
    """One message for each run of the loop that failed and is not retried by itself."""
    status = dg.DefaultSensorStatus.RUNNING if settings.running else dg.DefaultSensorStatus.STOPPED

    def tell(context: dg.RunFailureSensorContext, loop: dg.ResourceParam[LoopFolder], notifier: Notifier) -> None:
        run = context.instance.get_run_by_id(context.dagster_run.run_id) or context.dagster_run
        if run.tags.get(_WILL_RETRY) == "true" or not is_run_of(run, loop):
            return
        records = context.instance.all_logs(run.run_id)
        failure = find_failure(record.dagster_event for record in records if record.dagster_event)
        failure = failure or RunFailure("", context.failure_event.message or "the run's process is gone")
        link, round_key = f"{settings.ui_url}/runs/{run.run_id}", run.tags.get("dagster/partition", "")
        facts = {
            "job": run.job_name,
            "stage": failure.stage,
            "round": round_key,
            "reason": failure.reason,
            "link": link,
        }
        failure = replace(failure, stopped=STOPPED_TAG in run.tags)
        notifier.send(message(facts, failure), facts, context.log)

    return dg.run_failure_sensor(
        name=names.own("failed_runs"),
        minimum_interval_seconds=settings.poll_seconds,
        default_status=status,
        description="Sends one message for a run that failed: the stage, the reason and the link.",
    )(with_own_resources(tell, names))


def message(facts: dict[str, str], failure: RunFailure) -> str:
    """The message's text."""
    subject = " of ".join(filter(None, (facts["job"], facts["round"])))
    where = f" at {failure.stage}" if failure.stage else ""
    what = "stops at the gate" if failure.by_gate else f"stops{where}" if failure.stopped else f"failed{where}"
    return f"{subject} {what}: {failure.reason} {facts['link']}"
