"""`rlhf stop` and `rlhf resume`."""

from pathlib import Path

from rlhf_dagster.common.processes import user_name
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import pull, read_stop, reset


def stop_loop(folder: Path, reason: str, by: str | None) -> None:
    """Pull the stop cord."""
    from rlhf_dagster.cli.which_loop import open_loop

    if not reason.strip():
        raise UserError('Say why, for those who find the loop stopped: rlhf stop "the labels of Tuesday are wrong".')
    loop = open_loop(folder)
    before = read_stop(loop.store)
    if before is not None:
        print(f"{before.sentence} It was stopped at {before.at}.")
        return
    pull(loop.store, by or user_name(), reason)
    print("Stopped. Trainings end at their next checkpoint, and nothing new starts.")
    print(f"Next: rlhf resume {loop.option}")


def resume_loop(folder: Path, by: str | None) -> None:
    """Let the loop go on."""
    from rlhf_dagster.cli.which_loop import open_loop

    loop = open_loop(folder)
    stopped = reset(loop.store, by or user_name())
    if stopped is None:
        print("The loop was not stopped.")
        return
    print(f"The loop goes on. It was stopped at {stopped.at} by {stopped.by}: {stopped.reason}")
    print(
        "Where schedule and sensors are on, they take up what was stopped, from its last state; otherwise run it again."
    )
