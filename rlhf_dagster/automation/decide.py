"""What the schedule and the sensors do, as pure functions of what they see: launch a job, or wait and say why."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from rlhf_dagster.config.automation import AutomationSettings
from rlhf_dagster.labeling.store import LabelCounts
from rlhf_dagster.loop.round_state import RoundState

CLOCKS_DIFFER = timedelta(minutes=5)


@dataclass(frozen=True)
class Attempt:
    """The newest run of a job on a round."""

    run_id: str
    active: bool
    failed: bool
    """It ended without success, and not by the stop cord."""
    position: int = 0
    """Position in the ledger up to which labels had been counted when it was launched; 0 where a person launched it."""
    stopped: bool = False
    """The stop cord ended it."""


@dataclass(frozen=True)
class Launch:
    job: str
    round: str
    run_key: str
    why: str
    position: int = 0


@dataclass(frozen=True)
class Wait:
    why: str


@dataclass(frozen=True)
class Waiting:
    """A round with the newest run of a job on it."""

    state: RoundState
    attempt: Attempt | None = None
    since_attempt: LabelCounts | None = None
    """If the run failed: counts in which the labels after its position are ``new``."""


@dataclass(frozen=True)
class Scene:
    """What opening a round depends on besides the rounds."""

    prepared: bool
    active: Sequence[str] = field(default_factory=list)
    """Sentences about active runs, for which a new round has to wait."""


def open_decision(states: Sequence[RoundState], scene: Scene, settings: AutomationSettings) -> Wait | None:
    """Why no round should be opened now; None where one may be."""
    if not scene.prepared:
        return Wait("There is no champion to sample from yet; run the job `prepare` first.")
    if scene.active:
        return Wait(f"Training is behind: {scene.active[0]}.")
    behind = [state.round for state in states if state.phase == "labelling" and _complete(state.labels)]
    if behind:
        return Wait(f"Training is behind: {', '.join(behind)} has all its labels and is not trained yet.")
    unlabelled = sum(_open(state.labels) for state in states if not state.decided)
    if unlabelled > settings.max_unlabelled:
        return Wait(
            f"{unlabelled:,} comparisons of open rounds still want labels; "
            f"a round opens at {settings.max_unlabelled:,} or fewer."
        )
    progressing = [state.round for state in states if not state.decided]
    if len(progressing) >= settings.max_rounds_in_progress:
        return Wait(
            f"{', '.join(progressing)} has no decision yet; {settings.max_rounds_in_progress} may be in progress."
        )
    return None


def train_decision(waiting: Waiting, settings: AutomationSettings, now: datetime, epoch: int) -> Launch | Wait:
    """Whether a round is trained now. ``epoch`` counts resumes after a stop: a stopped run gets a new run key."""
    state, attempt, labels = waiting.state, waiting.attempt, waiting.state.labels
    if labels is None or state.phase not in ("labelling", "refused"):
        return Wait(f"{state.round}: nothing to train on.")
    if attempt and attempt.active:
        return Wait(f"{state.round} is being trained (run {attempt.run_id[:8]}).")
    tried = attempt is not None and attempt.failed
    counted = waiting.since_attempt if tried and waiting.since_attempt else labels
    failed = (
        f" Training on the others failed in run {attempt.run_id[:8]}; re-execute it once that is mended."
        if tried and attempt
        else ""
    )
    why = _enough(counted, settings, now)
    if isinstance(why, Wait):
        return Wait(f"{state.round}: {why.why}{failed}")
    key = f"{state.round}:{labels.position}:{epoch}"
    return Launch("train_round", state.round, key, f"{state.round}: {why}", labels.position)


def sending_decision(state: RoundState, attempt: Attempt | None, epoch: int) -> Launch | Wait:
    """Whether a run is begun once more that ended between the report on a policy and its way to the judges."""
    short = attempt.run_id[:8] if attempt else ""
    if attempt and attempt.active:
        return Wait(f"{state.round} is being trained (run {short}).")
    if attempt and attempt.failed:
        return Wait(
            f"{state.round}: {state.policy} is trained, and run {short} failed before it was decided on or sent to be "
            "judged; re-execute it once that is mended."
        )
    if not (attempt and attempt.stopped and state.labels):
        return Wait(f"{state.round}: {state.policy} is not decided on, nor sent to be judged; run train_round again.")
    position = state.labels.position
    why = f"{state.round}: run {short} was stopped before {state.policy} was decided on or sent to be judged."
    return Launch("train_round", state.round, f"{state.round}:{position}:{epoch}", why, position)


def release_decision(waiting: Waiting, settings: AutomationSettings, now: datetime, epoch: int) -> Launch | Wait:
    """Whether the A/B judgments of a round are decided on now."""
    state, attempt, judgments = waiting.state, waiting.attempt, waiting.state.judgments
    if state.phase != "judging" or judgments is None:
        return Wait(f"{state.round}: nothing is being judged.")
    if attempt and attempt.active:
        return Wait(f"{state.round} is being decided (run {attempt.run_id[:8]}).")
    if attempt and attempt.position >= judgments.position and (attempt.failed or state.reasons):
        reason = (
            state.reasons[0] if state.reasons else f"run {attempt.run_id[:8]} failed; re-execute it once that is mended"
        )
        return Wait(f"{state.round}: no new judgment since the last decision: {reason}")
    key = f"{state.round}:{judgments.position}:{epoch}"
    launch = Launch("release_round", state.round, key, "", judgments.position)
    if _complete(judgments):
        return _because(launch, f"{state.round}: all {judgments.comparisons:,} A/B comparisons are judged.")
    # The oldest stands in for a newest one that is yet to come by its annotator's clock.
    since = _since(judgments.newest_at, now)
    if since is None:
        since = _since(judgments.oldest_new_at, now)
    if since is not None and since >= timedelta(hours=settings.longest_wait_hours):
        return _because(launch, f"{state.round}: no A/B judgment for {_span(since)}; deciding on {judgments.usable:,}.")
    return Wait(f"{state.round}: {_open(judgments):,} of {judgments.comparisons:,} A/B comparisons are not judged.")


def collect_decision(state: RoundState, attempt: Attempt | None, seen_before: bool, epoch: int) -> Launch | Wait:
    """Whether an open round is collected now: a person opened it, or the stop cord ended its collecting.

    ``seen_before``: the round was open at the last tick already. One that was not may be the schedule's, which launches
    the rounds that it opens itself.
    """
    if state.phase != "opened":
        return Wait(f"{state.round}: collected.")
    if attempt and attempt.active:
        return Wait(f"{state.round} is being collected (run {attempt.run_id[:8]}).")
    if attempt and attempt.failed:
        return Wait(f"{state.round}: collecting failed in run {attempt.run_id[:8]}; re-execute it once that is mended.")
    if not seen_before:
        return Wait(f"{state.round} was opened just now.")
    return Launch("collect_round", state.round, f"{state.round}:{epoch}", f"{state.round} is open and not collected.")


def _enough(labels: LabelCounts, settings: AutomationSettings, now: datetime) -> str | Wait:
    """Why there are labels enough to train, or what is missing."""
    if labels.new == 0:
        return Wait(
            f"no new usable label ({labels.complete:,} of {labels.comparisons:,} comparisons have their labels)."
        )
    if _complete(labels):
        return f"all {labels.comparisons:,} comparisons have their labels, {labels.new:,} of them new."
    if labels.new < settings.min_new_labels:
        return Wait(f"{labels.new:,} new usable labels; training starts at {settings.min_new_labels:,}.")
    return _waited_enough(labels, settings, now)


def _waited_enough(labels: LabelCounts, settings: AutomationSettings, now: datetime) -> str | Wait:
    """Why annotators are not waited for any longer, or that they are at work."""
    quiet, waited = _since(labels.newest_at, now), _since(labels.oldest_new_at, now)
    if quiet is None:
        return f"{labels.new:,} new usable labels, the last by a clock that is ahead of ours and not waited for."
    if quiet >= timedelta(minutes=settings.quiet_minutes):
        return f"{labels.new:,} new usable labels, and none for {_span(quiet)}."
    if waited is not None and waited >= timedelta(hours=settings.longest_wait_hours):
        return f"{labels.new:,} new usable labels, of which the oldest has waited for {_span(waited)}."
    return Wait(
        f"{labels.new:,} new usable labels; annotators are at work (the last label is {_span(quiet)} old, "
        f"training waits for {settings.quiet_minutes:g} minutes without one)."
    )


def _because(launch: Launch, why: str) -> Launch:
    return Launch(launch.job, launch.round, launch.run_key, why, launch.position)


def _complete(counts: LabelCounts | None) -> bool:
    return counts is not None and counts.comparisons > 0 and counts.complete >= counts.comparisons


def _open(counts: LabelCounts | None) -> int:
    return 0 if counts is None else counts.comparisons - counts.complete


def _since(at: datetime | None, now: datetime) -> timedelta | None:
    """The age of a label; None where it is not known, as of one that by an annotator's clock is yet to come.

    Clocks differ a little: what is ahead by no more than :data:`CLOCKS_DIFFER` is new.
    """
    if at is None or at - now > CLOCKS_DIFFER:
        return None
    return max(now - at, timedelta())


def _span(span: timedelta | None) -> str:
    """A time span in the unit that fits: ``40 s``, ``12 min``, ``3.5 h``."""
    seconds = 0.0 if span is None else max(0.0, span.total_seconds())
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
