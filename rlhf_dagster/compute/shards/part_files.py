"""The files by which a run and its job share the parts of a task: each part is whole where its file is."""

import json
from pathlib import Path
from typing import Any

from rlhf_dagster.common.files import make_folder, write_atomically
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.compute.shards.task import PartRows, ShardTask, task_from_json, task_to_json
from rlhf_dagster.errors import Damaged

TASK_RECORD = "task.json"
PARTS = "state"
"""The folder that a work folder keeps between two tries."""


def write_task(folder: Path, task: ShardTask, store: str) -> None:
    """Write a task, and the address of the store whose stop cord ends it; remove the parts of another one."""
    (folder / PARTS).mkdir(exist_ok=True)
    for left in (folder / PARTS).iterdir():
        if not left.name.startswith(f"{task.identity}-"):
            left.unlink()
    write_atomically(folder / TASK_RECORD, seal({"task": task_to_json(task), "store": store}))


def read_task(folder: Path) -> ShardTask:
    """Raises Damaged where the file is not what was written."""
    path = folder / TASK_RECORD
    return task_from_json(_read(path)["task"], str(path))


def store_of_task(folder: Path) -> str:
    """The address of the store whose stop cord ends the task."""
    return str(_read(folder / TASK_RECORD)["store"])


def write_part(folder: Path, identity: str, number: int, rows: PartRows) -> None:
    make_folder(folder / PARTS)
    # A text of its own: a log-prob may be a number that a record cannot hold.
    write_atomically(_file(folder, identity, number), seal({"rows": json.dumps(rows)}, indent=None))


def read_part(folder: Path, identity: str, number: int) -> PartRows | None:
    """The rows of a part; None where it is not there, or is not what was written."""
    path = _file(folder, identity, number)
    try:
        rows: PartRows = json.loads(unseal(path.read_bytes(), str(path))["rows"])
    except (FileNotFoundError, Damaged):
        return None
    return rows


def _file(folder: Path, identity: str, number: int) -> Path:
    return folder / PARTS / f"{identity}-{number:06d}.json"


def _read(path: Path) -> dict[str, Any]:
    return unseal(path.read_bytes(), str(path))
