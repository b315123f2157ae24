"""The runs that lead a loop to the end of a variant: a job, a round, and the assets of it that are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.round_keys import round_key

PREPARE_JOB = "prepare"
_ROUND_JOBS = ("collect_round", "train_round")
"""The jobs of a round in which nobody is waited for."""


@dataclass(frozen=True)
class Step:
    """One run of a job."""

    job: str
    round_key: str | None
    """None for what belongs to no round."""
    assets: Sequence[str]
    """Upstream first."""


def steps_until(config: LoopConfig, rounds: int, until: str, name: str) -> list[Step]:
    """All steps up to and including the asset ``until`` of the last round; ``name`` is the variant's, for errors."""
    jobs = job_assets(config)
    prepare = Step(PREPARE_JOB, None, jobs[PREPARE_JOB])
    if until in prepare.assets:
        return [_cut(prepare, until)]
    if rounds < 1:
        raise UserError(f"The variant {name} has {rounds} rounds; its end, {until}, needs 1 or more.")
    by_round = [Step(job, round_key(number), jobs[job]) for number in range(1, rounds + 1) for job in _ROUND_JOBS]
    if until not in [asset for step in by_round for asset in step.assets]:
        raise UserError(f"The variant {name} ends after {until}, which its loop has not; see its `arms` and `release`.")
    last = max(place for place, step in enumerate(by_round) if until in step.assets)
    return [prepare, *by_round[:last], _cut(by_round[last], until)]


def first_steps(steps: Sequence[Step], after: str) -> list[Step]:
    """The steps up to and including the asset ``after``, of the first round where it belongs to a round."""
    place = next((place for place, step in enumerate(steps) if after in step.assets), None)
    return [] if place is None else [*steps[:place], _cut(steps[place], after)]


def _cut(step: Step, until: str) -> Step:
    return replace(step, assets=step.assets[: list(step.assets).index(until) + 1])
