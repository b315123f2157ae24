"""Bringing a loop back from a backup; it is stopped until a person lets it go on."""

import shutil
import tempfile
from pathlib import Path

from rlhf_dagster.common.sealed import read_as, unseal
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig, load_config
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.lineage.formats import KEPT_FOLDERS
from rlhf_dagster.lineage.people import PEOPLE_FILE
from rlhf_dagster.lineage.stop_cord import STOP_FILE, pull
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.backup import (
    FOLDER_FILES,
    LEDGER_COPY,
    PRIVATE_FILES,
    STORE_FILES,
    Backup,
    Tell,
    digest_of,
)
from rlhf_dagster.storage.base import LAST, Store
from rlhf_dagster.storage.known import is_remote, open_store


def bring_back(source: str, folder: Path, say: Tell) -> tuple[LoopFolder, Backup]:
    """Make a loop from a backup, in a folder without one; it is stopped until a person lets it go on.

    Its store is the folder, or the address that `root` in its loop.yaml names, where no loop may be either. Raises
    UserError where a loop is there, and Damaged, before anything is written, where the backup is not whole.
    """
    backup, store = _read_backup(source), open_store(source)
    if (folder / CONFIG_FILE).exists():
        raise UserError(f"{folder} holds a loop already; bring the backup back into a folder of its own.")
    _require_whole(store, backup)
    loop, local = LoopFolder(_config(store, folder), folder.resolve()), open_store(str(folder))
    for key in [key for key in backup.files if key.startswith(f"{FOLDER_FILES}/") and not key.endswith(CONFIG_FILE)]:
        name = key.removeprefix(f"{FOLDER_FILES}/")
        local.put(name, _file(store, key), private=name in PRIVATE_FILES)
    if is_remote(loop.address) and any(loop.store.list(kept) for kept in KEPT_FOLDERS):
        raise UserError(f"{loop.address} holds a loop already; correct `root` in loop.yaml.")
    for key in [key for key in backup.files if key.startswith(f"{STORE_FILES}/")]:
        name = key.removeprefix(f"{STORE_FILES}/")
        loop.store.put(name, _file(store, key), private=name == PEOPLE_FILE)
    say(f"{len(backup.files)} files brought back")
    _restore_ledger(store, loop)
    loop.store.delete(STOP_FILE)
    pull(loop.store, "rlhf restore", _ask(loop, backup))
    # Last: a folder without it is no loop, so that one that was brought back in part is not taken for one.
    local.put(CONFIG_FILE, _file(store, f"{FOLDER_FILES}/{CONFIG_FILE}"))
    return loop, backup


def _ask(loop: LoopFolder, backup: Backup) -> str:
    asked = f"this loop is as it was at {backup.at}; look at `rlhf check`"
    if loop.config.label_store.kind == "label_studio":
        asked += ", which compares it with the label server, where people may have gone on since"
    return asked


def _read_backup(source: str) -> Backup:
    found = open_store(source).get(LAST)
    if found is None:
        raise UserError(f"{source}: there is no whole backup here; its {LAST} is written last.")
    return read_as(Backup, unseal(found.data, f"{source}/{LAST}"), f"{source}/{LAST}")


def _require_whole(store: Store, backup: Backup) -> None:
    for key, digest in backup.files.items():
        if digest_of(_file(store, key)) != digest:
            raise Damaged(f"{store.address}/{key} is damaged: it does not match its checksum; take another backup.")


def _file(store: Store, key: str) -> Path:
    try:
        return store.local(key)
    except FileNotFoundError:
        raise Damaged(f"{store.address}/{key} is gone; take another backup.") from None


def _config(store: Store, folder: Path) -> LoopConfig:
    with tempfile.TemporaryDirectory() as beside:
        shutil.copyfile(_file(store, f"{FOLDER_FILES}/{CONFIG_FILE}"), Path(beside, CONFIG_FILE))
        return load_config(Path(beside))


def _restore_ledger(store: Store, loop: LoopFolder) -> None:
    if not store.exists(LEDGER_COPY):
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, LEDGER_COPY)
        shutil.copyfile(_file(store, LEDGER_COPY), copy)
        copy_ledger(LedgerAddress.of(copy), loop.ledger_place.address)
