"""`rlhf round delete` and `rlhf round restore`: a round taken out of the loop, and brought back, on record."""

from pathlib import Path

from rlhf_dagster.errors import UserError


def delete_round(folder: Path, round_key: str, by: str, reason: str) -> None:
    """Delete a round: its labels train nothing from now on, and its number is not used again. Its files stay."""
    from rlhf_dagster.assets.rounds import close_round, open_rounds
    from rlhf_dagster.automation.instance import require_idle
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.loop.guards.deleted_rounds import known_rounds, require_not_deleted

    loop = open_loop(folder)
    runner = LoopRunner.open(loop)
    keys = sorted({*known_rounds(loop), *open_rounds(runner.instance, loop)})
    if round_key not in keys:
        raise UserError(f"There is no round {round_key}; there are {', '.join(keys) or 'none'}.")
    require_not_deleted(loop, round_key)
    require_idle(runner.instance, loop)
    labels = loop.ledger.count(round_key, "train").usable
    # On record first: a process that is killed between the two leaves a deleted round with a partition, which no
    # asset makes anything of.
    loop.deletions.delete(round_key, by, reason)
    close_round(runner.instance, loop, round_key)
    print(f"{round_key} is deleted by {by}: {reason}")
    print(f"Its {labels:,} usable labels train nothing from now on; models that have learned from them stay.")
    print(f"The way back: rlhf round restore {round_key} {loop.option} --reason WHY")


def restore_round(folder: Path, round_key: str, by: str, reason: str) -> None:
    """Bring back a round that was deleted, or whose partition was."""
    from rlhf_dagster.assets.rounds import add_partition, open_rounds
    from rlhf_dagster.cli.runner import LoopRunner
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.loop.guards.deleted_rounds import known_rounds

    loop = open_loop(folder)
    runner = LoopRunner.open(loop)
    if round_key not in (keys := known_rounds(loop)):
        raise UserError(f"There was no round {round_key}; there were {', '.join(keys) or 'none'}.")
    if round_key in open_rounds(runner.instance, loop) and round_key not in loop.deletions.deleted():
        raise UserError(f"{round_key} is there; there is nothing to bring back.")
    loop.deletions.restore(round_key, by, reason)
    add_partition(runner.instance, loop, round_key)
    print(f"{round_key} is back by {by}: {reason}")
