"""A replication as a Dagster code location: a partition for each claim and seed, so that a team can run one cell again.

``RLHF_REPLICATION=DIR dagster dev -m rlhf_dagster.replication.definitions`` works in the folder that `rlhf replicate
--out DIR` works in, and goes on where that was. A cell waits while another one, or that command, works in the folder.
"""

import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

import dagster as dg
from pydantic import Field

from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import Claim
from rlhf_dagster.replication.judging import claim_record, seconds_of
from rlhf_dagster.replication.known import CLAIMS
from rlhf_dagster.replication.page.write import write_replication_page
from rlhf_dagster.replication.records import ReplicationRecord, write_replication
from rlhf_dagster.replication.running.costs import Costs
from rlhf_dagster.replication.running.plan import Plan, VariantWork, make_plan
from rlhf_dagster.replication.running.replicate import default_jobs, measure_cell, run_plan
from rlhf_dagster.replication.running.requests import WorkerMessage
from rlhf_dagster.replication.running.schedule import WorkListener

FOLDER_VARIABLE = "RLHF_REPLICATION"
"""Environment variable with the folder for everything; `replication` where it is not set."""
CELL_SEEDS = range(20)
"""As many as the claim with the most of them has in the full size with five."""
_GROUP = "replication"


class CellConfig(dg.Config):
    """How much is spent on a cell, and how."""

    size: Literal["quick", "full"] = Field("quick", description="For all claims minutes on two CPU cores, or hours.")
    jobs: int = Field(default_factory=default_jobs, ge=1, description="Processes side by side.")


class PageConfig(dg.Config):
    """Which cells the page is about."""

    size: Literal["quick", "full"] = Field("quick", description="That of the cells.")


def build_replication(claims: Sequence[Claim]) -> dg.Definitions:
    """`claim_figures`, partitioned by claim and seed, with its job, and `replication_page`."""
    figures = _claim_figures(claims)
    job = dg.define_asset_job("replicate_cells", [figures], description="Run claims with seeds, each by itself.")
    return dg.Definitions(assets=[figures, _replication_page(claims)], jobs=[job], executor=dg.in_process_executor)


def _claim_figures(claims: Sequence[Claim]) -> dg.AssetsDefinition:
    by_name = {claim.name: claim for claim in claims}
    cells = dg.MultiPartitionsDefinition(
        {
            "claim": dg.StaticPartitionsDefinition(list(by_name)),
            "seed": dg.StaticPartitionsDefinition([str(seed) for seed in CELL_SEEDS]),
        }
    )

    @dg.asset(partitions_def=cells, group_name=_GROUP, kinds={"json"})
    def claim_figures(context: dg.AssetExecutionContext, config: CellConfig) -> dg.MaterializeResult[Any]:
        """The figures of one claim and one seed: its loops are run, as far as they are not there, and measured."""
        cell = cast(dg.MultiPartitionKey, context.partition_key).keys_by_dimension
        claim, seed = by_name[cell["claim"]], int(cell["seed"])
        try:
            plan = make_plan([(claim, seed)], config.size, _folder(), claims)
            failures = run_plan(plan, config.jobs, Costs(1.0).of, _to_log(context), patience=None)
            figures = measure_cell(claim, config.size, seed, plan, failures)
        except UserError as error:
            raise dg.Failure(str(error), allow_retries=False) from None
        shown = {"loops": len(plan.works), "seconds_of_loops": seconds_of(plan)}
        return dg.MaterializeResult(metadata={"figures": dg.MetadataValue.json(figures), **shown})

    return claim_figures


def _replication_page(claims: Sequence[Claim]) -> dg.AssetsDefinition:
    @dg.asset(deps=["claim_figures"], group_name=_GROUP, kinds={"html"})
    def replication_page(config: PageConfig) -> dg.MaterializeResult[Any]:
        """The page and `replication.json`, about the claims and seeds whose loops are finished."""
        plan = make_plan(product(claims, CELL_SEEDS), config.size, _folder(), claims)
        seeds = {claim.name: _finished_seeds(plan, claim) for claim in claims}
        finished = [claim for claim in claims if seeds[claim.name]]
        if not finished:
            raise dg.Failure("No claim has a seed whose loops are finished; materialise claim_figures first.")
        records = [claim_record(claim, config.size, seeds[claim.name], plan, {}) for claim in finished]
        all_seeds = sorted({seed for found in seeds.values() for seed in found})
        write_replication(plan.out, ReplicationRecord(config.size, all_seeds, records, seconds_of(plan)))
        page = write_replication_page(plan.out, finished)
        verdicts = {f"verdict_{record.name}": record.verdict for record in records}
        return dg.MaterializeResult(metadata={"page": dg.MetadataValue.path(str(page)), **verdicts})

    return replication_page


def _folder() -> Path:
    return Path(os.environ.get(FOLDER_VARIABLE, "replication"))


def _finished_seeds(plan: Plan, claim: Claim) -> list[int]:
    return [seed for seed in CELL_SEEDS if all(work.is_done() for work in plan.cells[claim.name, seed])]


def _to_log(context: dg.AssetExecutionContext) -> WorkListener:
    def listen(work: VariantWork, said: WorkerMessage) -> None:
        where = f"{work.title} {said.round_key}".rstrip()
        if said.kind == "made":
            context.log.info(f"{where}: {said.what} in {said.seconds:.1f} s, {said.text}")
        elif said.kind in ("done", "failed"):
            context.log.info(f"{where}: {said.kind} {said.text}")

    return listen


replication_definitions = build_replication(CLAIMS)
