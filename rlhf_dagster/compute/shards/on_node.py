"""One part of a task on a node of Ray, which imports this module in place of being sent it."""

import socket
from functools import lru_cache
from pathlib import Path

from rlhf_dagster.compute.exchange import OWNER_RECORD, Owner, read_record
from rlhf_dagster.compute.shards.part_files import TASK_RECORD, read_task, write_part
from rlhf_dagster.compute.shards.task import OpenModels, ShardTask, rows_of_part
from rlhf_dagster.errors import UserError


def part_on_node(folder: str, job: str, identity: str, number: int) -> str:
    """Do one part on a node; gives the sentence of what keeps it from being done, empty where it is."""
    place = Path(folder)
    if not (place / TASK_RECORD).is_file():
        return (
            f"The node {socket.gethostname()} of Ray does not see {folder}, where the samples are drawn; put the loop "
            "on a disk that all nodes mount at the same place."
        )
    try:
        task, models = _opened(place, identity)
        rows = rows_of_part(task, task.parts()[number], models)
        if not owns(place, job):
            return f"Another job has taken over {folder}."
        write_part(place, identity, number, rows)
    except UserError as error:
        return str(error)
    return ""


@lru_cache(maxsize=1)
def _opened(folder: Path, identity: str) -> tuple[ShardTask, OpenModels]:
    """A process that does several parts of a task opens its models once."""
    task = read_task(folder)
    return task, OpenModels(task)


def owns(folder: Path, job: str) -> bool:
    """Whether a work folder is still this job's."""
    return read_record(Owner, folder / OWNER_RECORD).job == job
