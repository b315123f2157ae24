"""`rlhf replicate`: the papers' claims, each run as an experiment, with a page that says which of them hold here."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhf_dagster.cli.console import terminal
from rlhf_dagster.replication.base import Size
from rlhf_dagster.replication.judging import Replication
from rlhf_dagster.replication.known import CLAIMS, find_claims
from rlhf_dagster.replication.running.costs import Costs, measure_speed
from rlhf_dagster.replication.running.plan import make_plan

SEEDS = {"quick": 1, "full": 5}
"""How many seeds each size has where nobody says otherwise."""


def replicate(
    names: Sequence[str], size: Size, n_seeds: int | None, out: Path, jobs: int | None, dry_run: bool, quiet: bool
) -> dict[str, Any]:
    """Run the named claims, all of them without a name, and return what `replication.json` says.

    With ``dry_run`` only what it would cost is said.
    """
    asked = Replication(find_claims(names), size, seeds_of(size, n_seeds), out)
    processes = _jobs(jobs)
    console = terminal(quiet)
    plan = make_plan(asked.claims, size, asked.seeds, out, CLAIMS)
    costs = Costs(plan, measure_speed())
