"""What one variant takes over of another: the loop's store and ledger as they were after one asset was made.

While a variant runs, it leaves a copy of its store after each asset from which others go on. Files of a store are
never changed in place, so that the copies are names of the same files where the file system has hard links. Unfinished
trainings and Dagster's records are no part of them.
"""

import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from rlhf_dagster.common.files import make_folder, move_folder, write_atomically, writing
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.labeling.ledger.address import LEDGER_FILE, LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.lineage.formats import FORMAT_FILE, KEPT_FOLDERS
from rlhf_dagster.lineage.people import PEOPLE_FILE
from rlhf_dagster.lineage.stop_cord import reserve
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.ledger_mark import MARK_FILE
from rlhf_dagster.storage.local import LocalStore


def keep_beginning(loop: LoopFolder, target: Path) -> None:
    """Keep the loop as it is now in the folder ``target``; nothing happens where that is there."""
    if not target.exists():
        with writing(target.parent):
            _move_into_place(loop.root, target, "")


def begin_from(beginning: Path, folder: Path, settings: str, anew: Iterable[str] = ()) -> None:
    """Make the loop's folder ``folder``, with these lines as its `loop.yaml`, from what another loop has kept.

    Of the assets that belong to no round, those ``anew`` are left out.
    """
    with writing(folder.parent):
        _move_into_place(beginning, folder, settings, anew)
    reserve(LocalStore(folder))


def begin(folder: Path, settings: str) -> None:
    """Make the loop's folder with these lines as its `loop.yaml`, and nothing else."""
    write_atomically(folder / CONFIG_FILE, settings.encode())


def _move_into_place(source: Path, target: Path, settings: str, anew: Iterable[str] = ()) -> None:
    """Copy what a loop keeps, so that ``target`` is there whole or not at all."""
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.new")
    make_folder(beside)
    try:
        for name in (*KEPT_FOLDERS, FORMAT_FILE, MARK_FILE, PEOPLE_FILE):
            _link(source / name, beside / name)
        for asset in anew:
            (beside / "assets" / f"{asset}.json").unlink()
        _copy_ledger(source, beside)
        if settings:
            (beside / CONFIG_FILE).write_text(settings, encoding="utf-8")
        move_folder(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _copy_ledger(source: Path, target: Path) -> None:
    """A ledger is a database, which changes in place."""
    if (source / LEDGER_FILE).exists():
        copy_ledger(LedgerAddress.of(source / LEDGER_FILE), LedgerAddress.of(target / LEDGER_FILE))


def _link(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, copy_function=_second_name, ignore=shutil.ignore_patterns(".*"))
    elif source.is_file():
        _second_name(str(source), str(target))


def _second_name(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
