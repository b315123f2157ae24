"""`rlhf models`: the trained models of a loop, their size, why each of them stays, and what goes."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from rlhf_dagster.cli.which_loop import open_loop, open_to_read
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.upkeep.retention import StoredModel, remove_unneeded, stored_models

_NOT_NEEDED = "nothing needs it: removed at the next decision"


def list_models(folder: Path) -> None:
    """Print a line for each model of a loop, and how much was removed."""
    loop = open_to_read(folder)
    models, removed = stored_models(loop), loop.removals.removed()
    Console().print(_table(models))
    print(f"{len(models):,} models take {_mb(sum(model.size for model in models))}.")
    if removed:
        gone = sum(one.size for one in removed.values())
        print(f"{len(removed):,} were removed, {_mb(gone)}; registry/removals says which.")
    if loop.config.models.keep == "all":
        print("`models: {keep: 3}` in loop.yaml keeps those of the newest 3 decided rounds, and what else is needed.")


def remove_models(folder: Path) -> None:
    """Remove what nothing needs now, and say what went. Raises UserError where `models.keep` keeps all."""
    from rlhf_dagster.automation.instance import open_instance, require_idle

    loop = open_loop(folder)
    if loop.config.models.keep == "all":
        raise UserError("`models.keep` is `all`, which removes nothing; set it to a number of rounds in loop.yaml.")
    with open_instance(loop) as instance:
        require_idle(instance, loop)
    removed = remove_unneeded(loop)
    for one in removed:
        print(f"{one.model_id}  {_mb(one.size)}  removed")
    print(f"{len(removed):,} models were removed, {_mb(sum(one.size for one in removed))}.")


def retire_one(folder: Path, model: str, by: str, reason: str) -> None:
    """Remove one model that only `models.keep` keeps, and say so."""
    from rlhf_dagster.automation.instance import open_instance, require_idle
    from rlhf_dagster.loop.interventions.models import retire

    loop = open_loop(folder)
    with open_instance(loop) as instance:
        require_idle(instance, loop)
    done = retire(loop, model, by, reason)
    print(f"{done.model_id}  {_mb(done.size)}  removed")
    print("Its manifest stays in registry/removed, and why it went in registry/removals.")


def _table(models: list[StoredModel]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("model", no_wrap=True)
    table.add_column("MB", justify="right", no_wrap=True)
    table.add_column("stays because")
    for model in models:
        table.add_row(model.model_id, f"{model.size / 1e6:,.1f}", "; ".join(model.needed) or _NOT_NEEDED)
    return table


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
