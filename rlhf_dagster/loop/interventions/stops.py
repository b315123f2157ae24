"""The loop stopped, and let go on."""

from dataclasses import dataclass

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import Stop, pull, read_stop, reset
from rlhf_dagster.loop.folder import LoopFolder


@dataclass(frozen=True)
class Stopped:
    """The stop that holds."""

    stop: Stop
    before: bool
    """Whether it held already."""


def stop_trainings(loop: LoopFolder, by: str, reason: str) -> Stopped:
    """Pull the stop cord: trainings end at their next checkpoint, and nothing new starts.

    Raises UserError without a reason.
    """
    if not reason.strip():
        raise UserError('Say why, for those who find the loop stopped: rlhf stop "the labels of Tuesday are wrong".')
    before = read_stop(loop.store)
    return Stopped(before, True) if before else Stopped(pull(loop.store, by, reason), False)


def let_go_on(loop: LoopFolder, by: str) -> Stop | None:
    """Let the loop go on; returns the stop that ends, None where there was none."""
    return reset(loop.store, by)
