"""The tables that a training reads, as they were when it began."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_dagster.common.files import make_folder, writing
from rlhf_dagster.common.processes import is_gone, process_tag
from rlhf_dagster.compute.work import Work


@contextmanager
def own_copies(work: Work, *tables: Path) -> Iterator[tuple[Path, ...]]:
    """Copies of ``tables`` that nobody replaces while the block runs, in the order given.

    A table may be made again while a model trains on it. The manifest is written from the same copy that was trained
    on, so that it names the labels that were read.
    """
    _remove_left(work)
    folder = work.folder.with_name(_prefix(work) + process_tag(os.getpid()))
    with writing(folder.parent):
        shutil.rmtree(folder, ignore_errors=True)
        make_folder(folder)
    try:
        yield tuple(_copied(table, folder / str(number)) for number, table in enumerate(tables))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(table: Path, folder: Path) -> Path:
    """A copy with the name of its table, which errors show; one that is missing is said by who reads it."""
    with writing(folder):
        make_folder(folder)
        if table.exists():
            shutil.copyfile(table, folder / table.name)
    return folder / table.name


def _remove_left(work: Work) -> None:
    """Remove the copies of processes that were killed; those of another host, on a disk that both have, are its own."""
    for left in work.folder.parent.glob(f"{_prefix(work)}*"):
        if is_gone(left.name.removeprefix(_prefix(work))):
            shutil.rmtree(left, ignore_errors=True)


def _prefix(work: Work) -> str:
    return f".{work.folder.name}.inputs-"
