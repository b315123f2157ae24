"""From finished variants to the record of a replication: each claim is measured for each seed, and judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim, Criterion, Measured, Size
from rlhf_dagster.replication.records import FAILED, ClaimRecord, ReplicationRecord, VariantRecord
from rlhf_dagster.replication.running.plan import Plan, VariantWork
from rlhf_dagster.replication.running.replicate import measure_cell
from rlhf_dagster.replication.running.seconds import read_seconds
from rlhf_dagster.replication.verdicts import judge


@dataclass(frozen=True)
class Replication:
    """What is asked: claims, how much is spent, seeds, and the folder for everything."""

    claims: Sequence[Claim]
    size: Size
    seeds: range
    out: Path

    def seeds_of(self, claim: Claim) -> range:
        """Those of one claim, from the first one asked for on (:attr:`Claim.seeds_for_one`)."""
        times = claim.seeds_for_one if self.size == "full" else 1
        return range(self.seeds.start, self.seeds.start + times * len(self.seeds))

    def cells(self) -> list[tuple[Claim, int]]:
        """Every claim with each of its seeds, by seed."""
        found = [(claim, seed) for claim in self.claims for seed in self.seeds_of(claim)]
        return sorted(found, key=lambda cell: cell[1])


def record_of(asked: Replication, plan: Plan, failures: Mapping[str, str]) -> ReplicationRecord:
    """Measure and judge each claim, whose variants have been run; ``failures`` are those of :func:`run_plan`."""
    claims = [claim_record(claim, asked.size, asked.seeds_of(claim), plan, failures) for claim in asked.claims]
    return ReplicationRecord(asked.size, list(asked.seeds), claims, seconds_of(plan))


def seconds_of(plan: Plan) -> float:
    """Seconds of computing that the plan's works took, over all calls."""
    return round(sum(sum(read_seconds(work.folder).values()) for work in plan.works), 1)


def claim_record(
    claim: Claim, size: Size, seeds: Sequence[int], plan: Plan, failures: Mapping[str, str]
) -> ClaimRecord:
    """Measure a claim with each seed and judge it; one that cannot be measured has failed, and says why."""
    variants = [_variant_record(work, plan.out) for seed in seeds for work in plan.cells[claim.name, seed]]
    figures: list[Measured] = []
    criteria: list[Criterion] = []
    found: tuple[str, str]
    try:
        for seed in seeds:
            figures.append(measure_cell(claim, size, seed, plan, failures))
        criteria = list(claim.criteria(figures))
        found = (judge(criteria), claim.summary(figures))
    except UserError as error:
        criteria, found = [], (FAILED, str(error))
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        criteria, found = [], (FAILED, f"It could not be measured ({type(error).__name__}: {error}).")
    return ClaimRecord(
        claim.name, claim.title, claim.source, claim.paper, *found, list(seeds), criteria, figures, variants
    )


def _variant_record(work: VariantWork, out: Path) -> VariantRecord:
    variant = work.loop.variant
    return VariantRecord(
        variant.name,
        work.loop.seed,
        str(work.folder.relative_to(out)),
        variant.task,
        variant.rounds,
        variant.until,
        dict(variant.settings),
        read_seconds(work.folder),
    )
