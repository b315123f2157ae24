"""`rlhf stop` and `rlhf resume`."""

from pathlib import Path

from rlhf_dagster.common.processes import user_name
from rlhf_dagster.loop.interventions.stops import let_go_on, stop_trainings


def stop_loop(folder: Path, reason: str, by: str | None) -> None:
    """Pull the stop cord."""
    from rlhf_dagster.cli.which_loop import open_loop

    loop = open_loop(folder)
    found = stop_trainings(loop, by or user_name(), reason)
    if found.before:
        print(f"{found.stop.sentence} It was stopped at {found.stop.at}.")
        return
    print("Stopped. Trainings end at their next checkpoint, and nothing new starts.")
    print(f"Next: rlhf resume {loop.option}")


def resume_loop(folder: Path, by: str | None) -> None:
    """Let the loop go on."""
    from rlhf_dagster.cli.which_loop import open_loop

    loop = open_loop(folder)
    stopped = let_go_on(loop, by or user_name())
    if stopped is None:
        print("The loop was not stopped.")
        return
    print(f"The loop goes on. It was stopped at {stopped.at} by {stopped.by}: {stopped.reason}")
    print(
        "Where schedule and sensors are on, they take up what was stopped, from its last state; otherwise run it again."
    )
