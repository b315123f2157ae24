"""`rlhf replicate`: say what it costs, run what is missing, judge the claims, and say where the page is."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rlhf_dagster.cli.console import terminal
from rlhf_dagster.cli.replication.view import ReplicationView, in_minutes
from rlhf_dagster.errors import UserError
from rlhf_dagster.replication.base import PILOT_SEED, Size
from rlhf_dagster.replication.judging import Replication, record_of
from rlhf_dagster.replication.known import CLAIMS, find_claims
from rlhf_dagster.replication.page.write import write_replication_page
from rlhf_dagster.replication.records import RECORD_FILE, ReplicationRecord, read_replication, write_replication
from rlhf_dagster.replication.running.costs import Costs, measure_speed
from rlhf_dagster.replication.running.plan import VARIANTS_FOLDER, Plan, make_plan
from rlhf_dagster.replication.running.replicate import LOCK_FILE, default_jobs, run_plan

SEEDS_OF_SIZE: dict[Size, int] = {"quick": 1, "full": 5}
"""How many seeds each size has where nobody says otherwise."""


@dataclass(frozen=True)
class HowToRun:
    """How a replication is run; nothing of it changes what is computed."""

    jobs: int | None = None
    """Processes side by side; None: one for each core."""
    dry_run: bool = False
    """Only say what it would cost."""
    quiet: bool = False


def run_replication(names: Sequence[str], size: Size, seeds: range, out: Path, how: HowToRun) -> dict[str, Any] | None:
    """Run the named claims, or all; returns what `replication.json` says, None for a dry run.

    Raises UserError where there is no such claim, or where the folder is something else.
    """
    asked = Replication(find_claims(names), size, seeds, out)
    _require_reported_seeds(asked)
    jobs = default_jobs() if how.jobs is None else _at_least_one(how.jobs, "--jobs")
    _require_room(out)
    plan, console = make_plan(asked.cells(), size, out, CLAIMS), terminal(how.quiet)
    costs = Costs(measure_speed())
    view = ReplicationView(console, plan, costs, jobs)
    view.say_cost(asked)
    if how.dry_run:
        view.say_each(cost_lines(plan, costs))
        return None
    with view.watching():
        failures = run_plan(plan, jobs, costs.of, view.heard)
    record = record_of(asked, plan, failures)
    write_replication(out, record)
    page = write_replication_page(out, asked.claims)
    _show(console, out, page, record)
    return read_replication(out)


def seeds_of(size: Size, number: int | None, pilot: bool) -> range:
    """So many seeds, or as many as a size has: the reported ones from 0 on, or those on which settings are chosen."""
    first = PILOT_SEED if pilot else 0
    return range(first, first + (SEEDS_OF_SIZE[size] if number is None else _at_least_one(number, "--seeds")))


def list_claims(quiet: bool = False) -> list[dict[str, Any]]:
    """The claims with their papers, shown as a table."""
    rows = [{"name": one.name, "title": one.title, "source": one.source, "paper": one.paper} for one in CLAIMS]
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("claim", "what is claimed", "where"):
        table.add_column(column, no_wrap=column == "claim")
    for row in rows:
        table.add_row(row["name"], row["title"], row["source"])
    terminal(quiet).print(table)
    return rows


def cost_lines(plan: Plan, costs: Costs) -> Iterator[str]:
    """A line for each loop: its minutes on one core, which claims look at it, and what it begins as."""
    unfinished, width = plan.unfinished(), max(len(work.title) for work in plan.works)
    for work in plan.works:
        cost = in_minutes(costs.of(work)) if work in unfinished else "done"
        source, after = work.begins_from, work.begins_after
        begins = f"begins as {source.loop.variant.name} up to {after}" if source else ""
        yield f"  {work.title:<{width}} {cost:>6}  {', '.join(work.claims):<20} {begins}".rstrip()


def _require_reported_seeds(asked: Replication) -> None:
    """Raise UserError where seeds that are reported would reach those on which settings are chosen."""
    for claim in asked.claims:
        if asked.seeds.start < PILOT_SEED <= asked.seeds_of(claim)[-1]:
            raise UserError(
                f"--seeds {len(asked.seeds)}: {claim.name} would have seeds up to {asked.seeds_of(claim)[-1]}, and "
                f"settings are chosen on those from {PILOT_SEED} on; ask for fewer."
            )


def _at_least_one(number: int, option: str) -> int:
    if number < 1:
        raise UserError(f"{option} {number}: at least 1 is needed.")
    return number


def _require_room(out: Path) -> None:
    """Raise UserError where the folder is there and is no replication's."""
    if out.exists() and (not out.is_dir() or (not _is_replication(out) and any(out.iterdir()))):
        raise UserError(f"{out} exists and is no replication's folder; choose another --out.")


def _is_replication(out: Path) -> bool:
    return any((out / name).exists() for name in (VARIANTS_FOLDER, RECORD_FILE, LOCK_FILE))


def _show(console: Console, out: Path, page: Path, record: ReplicationRecord) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("claim", "verdict", "what is claimed"):
        table.add_column(column, no_wrap=column != "what is claimed")
    for claim in record.claims:
        table.add_row(claim.name, claim.verdict, claim.title)
    console.print()
    console.print(table)
    for claim in record.claims:
        console.print(f"{claim.name}: {claim.summary}", highlight=False, soft_wrap=True)
    for label, what in (("page", page), ("numbers", out / RECORD_FILE)):
        console.print(f"  {label:<14} {what}", highlight=False, soft_wrap=True)
