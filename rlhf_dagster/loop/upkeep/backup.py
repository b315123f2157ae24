"""Copying a loop elsewhere while it runs.

A backup is of one moment: what changes while it is copied is copied again, until a look over everything finds it as it
was copied. Models never change, and are copied once. Unfinished trainings are left out: they begin anew.
"""

import hashlib
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rlhf_dagster.common.files import reading, writing
from rlhf_dagster.common.sealed import seal
from rlhf_dagster.common.user_hash import USERS_KEY
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.lineage.formats import FORMAT_FILE, KEPT_FOLDERS
from rlhf_dagster.lineage.people import PEOPLE_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.ledger_mark import MARK_FILE
from rlhf_dagster.pages.server import ROUNDS_PAGE
from rlhf_dagster.storage.base import LAST, Store
from rlhf_dagster.storage.known import open_store

STORE_FILES, FOLDER_FILES, LEDGER_COPY = "store", "folder", "ledger.sqlite"
"""Where a backup has the loop's store, the files of its folder on this machine, and its ledger."""
PRIVATE_FILES = ("annotators.json", USERS_KEY)
"""Of a loop's folder: what names stand for, which its owner alone can read."""
_SINGLE = (FORMAT_FILE, MARK_FILE, PEOPLE_FILE, ROUNDS_PAGE)
_ATTEMPTS = 50
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Backup:
    """The manifest of a backup, which is there once the backup is whole."""

    loop: str
    at: str
    """When its moment was, as ISO 8601 in UTC."""
    address: str
    """Where the loop was."""
    files: dict[str, str]
    """The SHA-256 of each file, by its key in the backup."""
    annotations: int
    position: int
    """Of the ledger."""


def back_up(loop: LoopFolder, to: str, say: Tell) -> Backup:
    """Copy a loop to a folder or a bucket, where there is nothing yet, or an unfinished backup.

    Raises UserError where a whole backup or something else is there, and where the loop changes without a pause.
    """
    target = open_store(to)
    _require_room(target, loop)
    target.put(f"{FOLDER_FILES}/{CONFIG_FILE}", _config_of(loop))
    digests: dict[str, str] = {}
    _copy_moment(loop, target, digests, say)
    # Last, so that it holds all labels that the tables were made of.
    state = _copy_ledger(loop, target, digests)
    manifest = Backup(loop.config.name, _now(), loop.address, digests, *state)
    target.put(LAST, seal(vars(manifest)))
    return manifest


def _copy_moment(loop: LoopFolder, target: Store, digests: dict[str, str], say: Tell) -> None:
    """Copy store and Dagster's records until the store was the same before and after Dagster's records were copied."""
    stored: dict[str, str] = {}
    for attempt in range(_ATTEMPTS):
        copied = _copy_store(loop.store, target, stored)
        if attempt and not copied:
            digests |= stored
            return
        say(f"{copied} files copied")
        digests |= _copy_folder(loop.root, target)
    raise UserError("The loop changes without a pause, so that no moment can be kept; `rlhf stop` it first.")


def _config_of(loop: LoopFolder) -> bytes:
    with reading(loop.root / CONFIG_FILE):
        return (loop.root / CONFIG_FILE).read_bytes()


def _require_room(target: Store, loop: LoopFolder) -> None:
    if target.exists(LAST):
        raise UserError(f"{target.address}: there is a backup already; give each backup a place of its own.")
    there = target.list()
    begun = target.get(f"{FOLDER_FILES}/{CONFIG_FILE}")
    if there and (begun is None or begun.data != _config_of(loop)):
        raise UserError(f"{target.address} is not empty; give a backup a place of its own.")


def _copy_store(store: Store, target: Store, digests: dict[str, str]) -> int:
    """Copy what is not copied as it is now, models last; how many files that were."""
    keys = [key for folder in KEPT_FOLDERS if folder != "models" for key in store.list(folder)]
    keys += [key for key in _SINGLE if store.exists(key)]
    copied = sum(_copy(store, key, target, digests) for key in keys)
    for gone in [key for key in digests if key.startswith(f"{STORE_FILES}/") and not _is_kept(key, keys)]:
        target.delete(gone)
        del digests[gone]
        copied += 1
    models = [key for key in store.list("models") if f"{STORE_FILES}/{key}" not in digests]
    return copied + sum(_copy(store, key, target, digests) for key in models)


def _is_kept(key: str, keys: list[str]) -> bool:
    name = key.removeprefix(f"{STORE_FILES}/")
    return name.startswith("models/") or name in keys


def _copy(store: Store, key: str, target: Store, digests: dict[str, str]) -> int:
    try:
        file = store.local(key)
        with reading(file):
            name, digest = f"{STORE_FILES}/{key}", digest_of(file)
            if digests.get(name) == digest:
                return 0
            target.put(name, file, private=key == PEOPLE_FILE)
    except FileNotFoundError:  # it was there when the folder was listed
        return 0
    digests[name] = digest
    return 1


def digest_of(file: Path) -> str:
    """SHA-256 (64 hex digits) of a file."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _copy_folder(root: Path, target: Store) -> dict[str, str]:
    """Dagster's records, where they are files, each database as it is at one moment; and who the annotators are."""
    digests = {}
    for path in [
        *sorted((root / "dagster").rglob("*")),
        *filter(Path.is_file, (root / name for name in PRIVATE_FILES)),
    ]:
        name = f"{FOLDER_FILES}/{path.relative_to(root).as_posix()}"
        if path.suffix == ".db":
            data = _database(path)
        elif path.name in ("dagster.yaml", *PRIVATE_FILES):
            with reading(path):
                data = path.read_bytes()
        else:
            continue
        target.put(name, data, private=path.name in PRIVATE_FILES)
        digests[name] = hashlib.sha256(data).hexdigest()
    config = target.get(f"{FOLDER_FILES}/{CONFIG_FILE}")
    return digests | {f"{FOLDER_FILES}/{CONFIG_FILE}": hashlib.sha256(config.data if config else b"").hexdigest()}


def _database(path: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy.db")
        try:
            with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
                source.backup(target)
                target.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.DatabaseError as error:
            raise Damaged(f"{path} is damaged ({error}); delete Dagster's records, or bring them back.") from None
        return copy.read_bytes()


def _copy_ledger(loop: LoopFolder, target: Store, digests: dict[str, str]) -> tuple[int, int]:
    """The ledger as it is now; returns its number of annotations and its position."""
    place = loop.ledger_place
    if place.is_missing():
        return 0, 0
    with tempfile.TemporaryDirectory() as folder, writing(Path(folder)):
        copy = Path(folder, LEDGER_COPY)
        state = copy_ledger(place.address, LedgerAddress.of(copy))
        data = _database(copy)
    target.put(LEDGER_COPY, data)
    digests[LEDGER_COPY] = hashlib.sha256(data).hexdigest()
    return state.annotations, state.position


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
