"""The stop cord, pulled and reset."""

from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from rlhf_dagster.automation.interventions.define import Signed, intervention, who
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.stops import let_go_on, stop_trainings


class ResumeConfig(Signed):
    """A resume."""

    reason: str = Field("", description="Why, kept with the run; may be empty.")


@intervention("stop", "Pull the stop cord: trainings end at their next checkpoint, and nothing new starts.", Signed)
def stopping(context: dg.OpExecutionContext, config: Signed, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf stop`."""
    # A loop is stopped also by somebody who is in a hurry.
    found = stop_trainings(loop, who(context, config, otherwise="somebody in the UI"), config.reason)
    yield f"{found.stop.sentence} It was stopped at {found.stop.at}." if found.before else found.stop.sentence


@intervention("resume", "Let a stopped loop go on.", ResumeConfig)
def resuming(context: dg.OpExecutionContext, config: ResumeConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf resume`."""
    stopped = let_go_on(loop, who(context, config))
    if stopped is None:
        yield "The loop was not stopped."
        return
    yield f"The loop goes on. It was stopped at {stopped.at} by {stopped.by}: {stopped.reason}"
    yield "Where schedule and sensors are on, they take up what was stopped; otherwise launch it again."
