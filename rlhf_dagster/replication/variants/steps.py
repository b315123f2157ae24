"""The runs that lead a loop to the end of a variant: a job, a round, and the assets of it that are wanted."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from rlhf_dagster.automation.jobs import job_assets
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.round_keys import round_key
from rlhf_dagster.replication.base import Variant

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


def steps_of(config: LoopConfig, variant: Variant) -> list[Step]:
    """All steps of a variant, whose settings are ``config``; raises UserError where it ends after what it has not."""
    jobs = job_assets(config)
    prepare = Step(PREPARE_JOB, None, jobs[PREPARE_JOB])
    if variant.until in prepare.assets:
        return [_cut(prepare, variant.until)]
    if variant.rounds < 1:
        raise UserError(f"The variant {variant.name} has {variant.rounds} rounds; {variant.until} needs 1 or more.")
    ends = [*[variant.between] * (variant.rounds - 1), variant.until]
    by_round = [_round_until(jobs, number, end, variant.name) for number, end in enumerate(ends, start=1)]
    return [prepare, *(step for steps in by_round for step in steps)]


def _round_until(jobs: dict[str, list[str]], number: int, end: str, name: str) -> list[Step]:
    """The steps of a round up to and including the asset ``end``; all of them where that is empty."""
    steps = [Step(job, round_key(number), jobs[job]) for job in _ROUND_JOBS]
    if not end:
        return steps
    if found := first_steps(steps, end):
        return found
    raise UserError(f"The variant {name} ends a round after {end}, which it has not; see its `arms` and `release`.")


def first_steps(steps: Sequence[Step], after: str) -> list[Step]:
    """The steps up to and including the asset ``after``, of the first round where it belongs to a round."""
    place = next((place for place, step in enumerate(steps) if after in step.assets), None)
    return [] if place is None else [*steps[:place], _cut(steps[place], after)]


def taken_over(steps: Sequence[Step], variant: Variant) -> set[tuple[str | None, str]]:
    """The assets with their round that a variant of these steps takes from its beginning and never makes itself."""
    beginning = first_steps(steps, variant.after)
    return {(step.round_key, asset) for step in beginning for asset in step.assets if asset not in variant.anew}


def without(steps: Sequence[Step], made: Collection[tuple[str | None, str]]) -> list[Step]:
    """The steps that are left, where assets (with their round) are made already."""
    left = [replace(step, assets=[one for one in step.assets if (step.round_key, one) not in made]) for step in steps]
    return [step for step in left if step.assets]


def cut_after(steps: Sequence[Step], assets: Collection[str]) -> Iterator[Step]:
    """The same steps, with those in two in which one of ``assets`` is made for the first time: that ends the first."""
    seen: set[str] = set()
    for step in steps:
        begin = 0
        for place, asset in enumerate(step.assets, start=1):
            if asset in assets and asset not in seen:
                yield replace(step, assets=step.assets[begin:place])
                begin = place
        seen |= set(step.assets)
        if begin < len(step.assets):
            yield replace(step, assets=step.assets[begin:])


def _cut(step: Step, until: str) -> Step:
    return replace(step, assets=step.assets[: list(step.assets).index(until) + 1])
