"""The driver of a sharded task's Ray job: ``python -m rlhf_dagster.compute.shards.ray_driver FOLDER JOB``.

At most `compute.processes` parts are at work at once, each a Ray task; parts that an earlier try has done are not done
again. Importing this imports no Ray.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.exchange import (
    FOLLOWED,
    MESSAGES,
    OUTCOME,
    Messages,
    TrainingOutcome,
    write_record,
)
from rlhf_dagster.compute.launchers.ray_work import ANOTHERS, GAVE_UP, NO_FOLDER, SignsOfRun, leave
from rlhf_dagster.compute.shards.on_node import owns, part_on_node
from rlhf_dagster.compute.shards.part_files import TASK_RECORD, read_part, read_task, store_of_task
from rlhf_dagster.compute.shards.task import ShardTask
from rlhf_dagster.compute.work import CANCELLED
from rlhf_dagster.compute.worker import CANNOT_WRITE, outcome_of, reason_in
from rlhf_dagster.config.training import RaySettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import StopCord
from rlhf_dagster.storage.known import open_store

_LOOK = 1.0
"""Seconds between two looks at whether to stop."""


def main() -> None:
    folder, job = Path(sys.argv[1]), sys.argv[2]
    if not (folder / TASK_RECORD).is_file():
        leave(f"{folder} is not on this node.", NO_FOLDER)
    messages = Messages(folder / MESSAGES)
    outcome = outcome_of(lambda: _done(read_task(folder), folder, job, messages))
    if not owns(folder, job):
        leave(f"Another job has taken over {folder}.", ANOTHERS)
    try:
        write_record(folder / OUTCOME, replace(outcome, ray_job=job))
    except UserError as error:
        leave(str(error), CANNOT_WRITE)


def _done(task: ShardTask, folder: Path, job: str, messages: Messages) -> TrainingOutcome:
    identity, parts = task.identity, len(task.parts())
    missing = [number for number in range(parts) if read_part(folder, identity, number) is None]
    reason_to_stop = _reasons(task, folder)
    with _on_nodes(task.compute.ray) as nodes:
        waiting, done = [*reversed(missing)], parts - len(missing)
        going: set[Any] = set()
        while waiting or going:
            while waiting and len(going) < task.compute.processes:
                going.add(nodes.do(str(folder), job, identity, waiting.pop()))
            if reason := reason_to_stop():
                return TrainingOutcome(stopped=reason)
            ended, going = nodes.wait(going)
            for sentence in ended:
                if sentence:
                    return TrainingOutcome(error=sentence)
                done += 1
                messages.progress(done, parts)
    return TrainingOutcome(result="done")


def _reasons(task: ShardTask, folder: Path) -> Callable[[], str]:
    """Says why to stop; what parts are at work then is lost, a batch of each."""
    signs = SignsOfRun(folder / FOLLOWED, task.compute.ray.orphan_seconds)
    cord = StopCord(open_store(store_of_task(folder)))
    return lambda: reason_in(folder / CANCELLED) or cord.sentence() or signs.ended()


@dataclass(frozen=True)
class _Nodes:
    """Ray, as far as it is asked."""

    ray: Any
    part: Any

    def do(self, *arguments: Any) -> Any:
        return self.part.remote(*arguments)

    def wait(self, going: set[Any]) -> tuple[list[str], set[Any]]:
        """What those have said that have ended within a moment, and those that have not."""
        ended, rest = self.ray.wait([*going], num_returns=1, timeout=_LOOK)
        try:
            return self.ray.get(ended), set(rest)
        except self.ray.exceptions.RayError as error:
            leave(str(error), GAVE_UP)


@contextmanager
def _on_nodes(settings: RaySettings) -> Iterator[_Nodes]:
    import ray

    asked = dict(settings.per_process)
    ray.init()
    remote = ray.remote(
        num_cpus=asked.pop("CPU", 0), num_gpus=asked.pop("GPU", 0), resources=asked, max_retries=settings.restarts
    )(part_on_node)
    try:
        yield _Nodes(ray, remote)
    finally:
        ray.shutdown()


if __name__ == "__main__":
    main()
