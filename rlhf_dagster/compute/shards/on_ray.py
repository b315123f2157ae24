"""A sharded task as a Ray job: its rows, in order, wherever the parts were done."""

from rlhf_dagster.compute.launchers.ray_work import RayTask, done_on_ray
from rlhf_dagster.compute.shards.part_files import read_part, write_task
from rlhf_dagster.compute.shards.task import PartRows, ShardTask
from rlhf_dagster.compute.work import TrainingDied, Work
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.runtime.resuming import TrainingStopped
from rlhf_dagster.training.specs import OnStep


def is_on_ray(task: ShardTask) -> bool:
    """Whether the task's settings have it done on a Ray cluster; other programs than `native` draw all rows at once."""
    in_parts = task.kind == "scores" or task.compute.rollout_backend == "native"
    return task.compute.launch == "ray" and in_parts and bool(task.prompts)


def rows_on_ray(task: ShardTask, work: Work, progress: OnStep) -> PartRows:
    """Have a task done by a Ray job in the folder of ``work``, which is removed at the end.

    Raises:
        TrainingStopped: it was asked to end; the next try does the parts that are missing.
        TrainingDied, TrainingFailed, UserError: as :func:`~rlhf_dagster.compute.launchers.ray_work.done_on_ray`.
    """
    identity = task.identity
    with work.locked():
        asked = RayTask(
            task.kind,
            "rlhf_dagster.compute.shards.ray_driver",
            identity,
            task.compute,
            lambda: write_task(work.folder, task, work.store.address),
        )
        outcome = done_on_ray(asked, work, progress)
        if outcome.error:
            raise UserError(outcome.error)
        if outcome.stopped:
            raise TrainingStopped(outcome.stopped)
        rows: PartRows = []
        for number in range(len(task.parts())):
            part = read_part(work.folder, identity, number)
            if part is None:
                raise TrainingDied(f"Part {number} of {work.folder} is damaged; the next try does it again.")
            rows += part
    work.clear()
    return rows
