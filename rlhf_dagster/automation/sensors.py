"""The schedule that opens rounds, and the sensors that carry them on: they look, decide, and launch or say why not."""

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from rlhf_dagster.assets.rounds import open_next_round, open_rounds
from rlhf_dagster.automation import decide
from rlhf_dagster.automation.conversations import conversation_sensors
from rlhf_dagster.automation.decide import Launch, Wait
from rlhf_dagster.automation.failures import failed_runs
from rlhf_dagster.automation.pages import page_sensor
from rlhf_dagster.automation.watch import (
    POSITION_TAG,
    WHY_TAG,
    active_run,
    impatient,
    last_attempt,
    rounds_in_progress,
    scene,
    waiting_for,
)
from rlhf_dagster.config.automation import AutomationSettings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import pull, read_stop, resumes
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import unsettled_sentence
from rlhf_dagster.loop.guards.place import require_in_place
from rlhf_dagster.loop.round_state import RoundState
from rlhf_dagster.records.loop_names import ALONE, LoopNames
from rlhf_dagster.resources.own_keys import with_own_resources

_REASONS_SHOWN = 3
"""How many reasons a skipped tick names: those of the newest rounds."""
Loop = dg.ResourceParam[LoopFolder]


class TickFailed(Exception):  # noqa: N818
    """A tick could not read the state of the rounds: the label server is down, or a setting is wrong."""


def loop_automation(
    config: LoopConfig, names: LoopNames = ALONE
) -> tuple[list[dg.ScheduleDefinition], list[dg.SensorDefinition]]:
    """The schedule and the sensors of a loop."""
    declared = (new_labels, opened_rounds, judgments_complete, failed_runs, page_sensor)
    sensors = [sensor(config.automation, names) for sensor in declared]
    return [open_round(config.automation, names)], [*sensors, *conversation_sensors(config, names)]


def open_round(settings: AutomationSettings, names: LoopNames = ALONE) -> dg.ScheduleDefinition:
    status = dg.DefaultScheduleStatus.RUNNING if settings.running else dg.DefaultScheduleStatus.STOPPED

    def tick(context: dg.ScheduleEvaluationContext, loop: Loop) -> dg.RunRequest | dg.SkipReason:
        def look() -> dg.RunRequest | dg.SkipReason:
            if stop := read_stop(loop.store):
                return dg.SkipReason(stop.sentence)
            patient, instance = impatient(loop), context.instance
            states = rounds_in_progress(instance, patient)
            wait = decide.open_decision(states, scene(instance, patient), settings)
            if wait is not None:
                return dg.SkipReason(wait.why)
            key = open_next_round(instance, loop)
            why = f"{key} was opened by the schedule."
            return dg.RunRequest(run_key=key, partition_key=key, tags={WHY_TAG: why})

        return _look(loop, look)

    return dg.schedule(
        name=names.own("open_round"),
        job_name=names.own("collect_round"),
        cron_schedule=settings.open_round_cron,
        execution_timezone=settings.timezone,
        default_status=status,
        description="Opens the next round and collects it, unless too much is unlabelled or training is behind.",
    )(with_own_resources(tick, names))


def new_labels(settings: AutomationSettings, names: LoopNames = ALONE) -> dg.SensorDefinition:
    @_sensor(settings, names, "new_labels", "train_round")
    def sensor(context: dg.SensorEvaluationContext, loop: LoopFolder) -> dg.SensorResult:
        """Trains a round once enough labels are new and its annotators are quiet, done, or waited for long enough."""
        states = rounds_in_progress(context.instance, loop)
        cursor = _obey_flags(loop, states, settings, context.cursor)
        if stop := read_stop(loop.store):
            return dg.SensorResult(skip_reason=stop.sentence, cursor=cursor)
        if active := active_run(context.instance, loop, "train_round"):
            return dg.SensorResult(skip_reason=f"{active}; one training at a time.", cursor=cursor)
        decisions = [
            _train_or_send(context.instance, loop, state, settings)
            for state in states
            if state.phase in ("labelling", "refused", "trained")
        ]
        notices = [*_notices(context, states), *_unsettled(context, loop)]
        return _first(decisions, "No round waits for labels.", cursor, notices)

    return sensor


def _train_or_send(
    instance: dg.DagsterInstance, loop: LoopFolder, state: RoundState, settings: AutomationSettings
) -> Launch | Wait:
    epoch = resumes(loop.store)
    if state.phase == "trained":
        return decide.sending_decision(state, last_attempt(instance, loop, "train_round", state.round), epoch)
    waiting = waiting_for(instance, loop, "train_round", state)
    return decide.train_decision(waiting, settings, datetime.now(UTC), epoch)


def opened_rounds(settings: AutomationSettings, names: LoopNames = ALONE) -> dg.SensorDefinition:
    @_sensor(settings, names, "opened_rounds", "collect_round")
    def sensor(context: dg.SensorEvaluationContext, loop: LoopFolder) -> dg.SensorResult:
        """Collects a round that a person opened, or whose collecting was stopped."""
        if stop := read_stop(loop.store):
            return dg.SensorResult(skip_reason=stop.sentence)
        states = [state for state in rounds_in_progress(context.instance, loop) if state.phase == "opened"]
        seen, epoch = set(json.loads(context.cursor or "[]")), resumes(loop.store)
        decisions = [
            decide.collect_decision(
                state, last_attempt(context.instance, loop, "collect_round", state.round), state.round in seen, epoch
            )
            for state in states
        ]
        return _first(decisions, "Every open round is collected.", json.dumps([state.round for state in states]))

    return sensor


def judgments_complete(settings: AutomationSettings, names: LoopNames = ALONE) -> dg.SensorDefinition:
    @_sensor(settings, names, "judgments_complete", "release_round")
    def sensor(context: dg.SensorEvaluationContext, loop: LoopFolder) -> dg.SensorResult:
        """Decides on a round's policy once its A/B comparisons are judged."""
        if stop := read_stop(loop.store):
            return dg.SensorResult(skip_reason=stop.sentence)
        now, epoch = datetime.now(UTC), resumes(loop.store)
        decisions = [
            decide.release_decision(waiting_for(context.instance, loop, "release_round", state), settings, now, epoch)
            for state in rounds_in_progress(context.instance, loop)
            if state.phase == "judging"
        ]
        return _first(decisions, "Nothing is being judged.")

    return sensor


def _sensor(
    settings: AutomationSettings, names: LoopNames, name: str, job: str
) -> Callable[[Callable[..., dg.SensorResult]], dg.SensorDefinition]:
    """A sensor of one job, whose function is given a loop that does not wait long for a slow label server."""
    status = dg.DefaultSensorStatus.RUNNING if settings.running else dg.DefaultSensorStatus.STOPPED

    def declare(function: Callable[..., dg.SensorResult]) -> dg.SensorDefinition:
        def tick(context: dg.SensorEvaluationContext, loop: Loop) -> dg.SensorResult:
            return _look(loop, lambda: function(context, impatient(loop)))

        return dg.sensor(
            name=names.own(name),
            job_name=names.own(job),
            minimum_interval_seconds=settings.poll_seconds,
            default_status=status,
            description=function.__doc__,
        )(with_own_resources(tick, names))

    return declare


def _look(loop: LoopFolder, look: Callable[[], Any]) -> Any:
    """Fail the tick with the sentence of a UserError: a dead label server must not look like a quiet one.

    In a copy of a loop nothing looks.
    """
    try:
        require_in_place(loop)
        return look()
    except UserError as error:
        raise TickFailed(str(error)) from None


def _unsettled(context: dg.SensorEvaluationContext, loop: LoopFolder) -> list[str]:
    """What people have to settle about rounds that were deleted."""
    said = unsettled_sentence(loop, open_rounds(context.instance, loop))
    return [said] if said else []


def _notices(context: dg.SensorEvaluationContext, states: Sequence[RoundState]) -> list[str]:
    """What people have to look at in the label store; logged too: a tick that launches a run shows no reason."""
    counts = [found for state in states for found in (state.labels, state.judgments) if found is not None]
    notices = [notice for found in counts for notice in found.notices]
    for notice in notices:
        context.log.warning(notice)
    return notices


def _first(
    decisions: Sequence[Launch | Wait], nothing: str, cursor: str | None = None, notices: Sequence[str] = ()
) -> dg.SensorResult:
    """The run of the oldest round that is due, or the reasons why there is none, with what people have to look at."""
    for decision in decisions:
        if isinstance(decision, Launch):
            request = dg.RunRequest(
                run_key=decision.run_key,
                partition_key=decision.round,
                tags={POSITION_TAG: str(decision.position), WHY_TAG: decision.why},
            )
            return dg.SensorResult(run_requests=[request], cursor=cursor)
    reasons = [decision.why for decision in decisions if isinstance(decision, Wait)][-_REASONS_SHOWN:]
    said = [*(reasons or [nothing]), *notices]
    return dg.SensorResult(skip_reason=" ".join(said), cursor=cursor)


def _obey_flags(
    loop: LoopFolder, states: Sequence[RoundState], settings: AutomationSettings, cursor: str | None
) -> str | None:
    """Pull the stop cord where enough annotators ask for it; those who had asked before a resume do not count again.

    The cursor holds how many had asked, by round, when the cord was last pulled for it.
    """
    heard: dict[str, int] = json.loads(cursor or "{}")
    for state in states:
        asked = 0 if state.labels is None else state.labels.stop_requests
        if settings.stop_requests is None or asked - heard.get(state.round, 0) < settings.stop_requests:
            continue
        said = "; ".join(state.labels.stop_reasons) if state.labels else ""
        pull(loop.store, f"{asked} annotators of {state.round}", said or "they marked `stop` and gave no reason")
        heard[state.round] = asked
    return json.dumps(heard)
