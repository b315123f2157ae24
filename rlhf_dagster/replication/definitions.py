"""A replication as a Dagster code location: a partition for each claim and seed, so that a team can run one cell again.

``RLHF_REPLICATION=DIR dagster dev -m rlhf_dagster.replication.definitions`` works in the folder that `rlhf replicate
--out DIR` works in, and goes on where that was. A cell waits while another one, or that command, works in the folder.
"""

import os
from pathlib import Path
from typing import Any, Literal, cast

import dagster as dg
from pydantic import Field

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.judging import claim_record, seconds_of
from rlhf_dagster.replication.known import CLAIMS, find_claims
from rlhf_dagster.replication.page.write import write_replication_page
from rlhf_dagster.replication.records import ReplicationRecord, write_replication
from rlhf_dagster.replication.running.costs import Costs
from rlhf_dagster.replication.running.plan import Plan, VariantWork, make_plan
from rlhf_dagster.replication.running.replicate import default_jobs, measure_cell, run_plan
from rlhf_dagster.replication.running.requests import WorkerMessage

FOLDER_VARIABLE = "RLHF_REPLICATION"
"""Environment variable with the folder for everything."""
CELL_SEEDS = [str(seed) for seed in range(5)]
_GROUP = "replication"
cells = dg.MultiPartitionsDefinition(
    {
        "claim": dg.StaticPartitionsDefinition([claim.name for claim in CLAIMS]),
        "seed": dg.StaticPartitionsDefinition(CELL_SEEDS),
    }
)


class CellConfig(dg.Config):
    """How much is spent on a cell."""

    size: Literal["quick", "full"] = Field("quick", description="Minutes on two CPU cores for all claims, or hours.")
    jobs: int = Field(default_factory=default_jobs, ge=1, description="Processes side by side.")


class PageConfig(dg.Config):
    """Which cells the page is about."""

    size: Literal["quick", "full"] = Field("quick", description="That of the cells.")


@dg.asset(partitions_def=cells, group_name=_GROUP, kinds={"json"})
def claim_figures(context: dg.AssetExecutionContext, config: CellConfig) -> dg.MaterializeResult[Any]:
    """The figures of one claim and one seed: its loops are run, as far as they are not there, and measured."""
    cell = cast(dg.MultiPartitionKey, context.partition_key).keys_by_dimension
    name, seed = cell["claim"], int(cell["seed"])
    claims = find_claims([name])
    try:
        plan = make_plan(claims, config.size, [seed], _folder(), CLAIMS)
        failures = run_plan(plan, config.jobs, Costs(1.0).of, _logging(context), patience=None)
        figures = measure_cell(claims[0], config.size, seed, plan, failures)
    except UserError as error:
        raise dg.Failure(str(error), allow_retries=False) from None
    return dg.MaterializeResult(
        metadata={
            "figures": dg.MetadataValue.json(figures),
            "loops": len(plan.works),
            "seconds_of_loops": seconds_of(plan),
        }
    )


@dg.asset(deps=[claim_figures], group_name=_GROUP, kinds={"html"})
def replication_page(config: PageConfig) -> dg.MaterializeResult[Any]:
    """The page and `replication.json`, about the claims and seeds whose loops are finished."""
    plan = make_plan(CLAIMS, config.size, list(map(int, CELL_SEEDS)), _folder(), CLAIMS)
    done = {claim.name: _finished_seeds(plan, claim.name) for claim in CLAIMS}
    claims = [claim for claim in CLAIMS if done[claim.name]]
    if not claims:
        raise dg.Failure("No claim has a seed whose loops are finished; materialise claim_figures first.")
    records = [claim_record(claim, config.size, done[claim.name], plan, {}) for claim in claims]
    seeds = sorted({seed for claim in claims for seed in done[claim.name]})
    write_replication(plan.out, ReplicationRecord(config.size, seeds, records, seconds_of(plan)))
    page = write_replication_page(plan.out, claims)
    verdicts = {f"verdict_{record.name}": record.verdict for record in records}
    return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(str(page)), **verdicts})


def _folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE, "replication"))


def _finished_seeds(plan: Plan, claim: str) -> list[int]:
    cells_of = ((seed, works) for (name, seed), works in plan.cells.items() if name == claim)
    return [seed for seed, works in cells_of if all(work.is_done() for work in works)]


def _logging(context: dg.AssetExecutionContext) -> Any:
    def listen(work: VariantWork, said: WorkerMessage) -> None:
        if said.kind == "made":
            context.log.info(f"{work.title} {said.round_key}: {said.what} ({said.seconds:.1f} s) {said.text}")
        elif said.kind in ("done", "failed"):
            context.log.info(f"{work.title}: {said.kind} {said.text}")

    return listen


replication_definitions = dg.Definitions(
    assets=[claim_figures, replication_page],
    jobs=[dg.define_asset_job("replicate_cells", selection=[claim_figures], description="Run cells, each by itself.")],
    executor=dg.in_process_executor,
)
