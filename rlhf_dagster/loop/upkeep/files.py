"""Whether every file of a loop is what was written, and what is left of interrupted writing."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

from rlhf_dagster.common.sealed import is_whole_page, unseal
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.people import PEOPLE_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.place import PLACE_FILE
from rlhf_dagster.loop.upkeep.findings import Finding
from rlhf_dagster.pages.server import ROUNDS_PAGE
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.storage.local import LocalStore

SET_ASIDE = "damaged"
"""The folder of a store that keeps what was damaged."""
_LEFT_AFTER = 3600.0
"""Seconds after which a file that somebody was writing is taken for left behind."""
_LEFT = (".tmp", ".new", ".gone")


def check_files(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about tables, JSON files and pages."""
    for folder in ("answers", "assets", "imports", "quarantine"):
        for key in loop.store.list(folder):
            yield from _check_file(loop, key)
    for key in (ROUNDS_PAGE, PLACE_FILE, PEOPLE_FILE):
        yield from _check_file(loop, key)


def problem_of(data: bytes, key: str) -> str:
    """Why a file is not what was written; empty where it is."""
    try:
        if key.endswith(".json"):
            unseal(data, key)
        elif key.endswith(".parquet"):
            read_parquet(data, key)
        elif key.endswith(".html") and not is_whole_page(data):
            return f"{key} is damaged: it does not match its checksum."
    except UserError as error:
        return str(error)
    return ""


def _check_file(loop: LoopFolder, key: str) -> Iterator[Finding]:
    found = loop.store.get(key)
    problem = problem_of(found.data, key) if found else ""
    if not problem:
        return
    if key == PEOPLE_FILE:
        yield Finding(problem, "bring it back from a backup: without it people get other pseudonyms")
    elif key.startswith("imports/"):
        yield Finding(problem, "bring it back from a backup, or import its records again")
    else:
        yield Finding(problem, _made_again(key), lambda: set_aside(loop, key))


def _made_again(key: str) -> str:
    folder, _, name = key.partition("/")
    if folder != "assets":
        return "it is made again when it is needed next"
    asset, _, rest = name.rpartition(".")[0].partition("/")
    return f"run {asset}{f' of {rest}' if rest else ''} again: `rlhf run` makes it once it is set aside"


def set_aside(loop: LoopFolder, key: str) -> str:
    """Move a file that is damaged to where nobody reads it; what is missing is made again."""
    found = loop.store.get(key)
    if found is not None:
        loop.store.put(f"{SET_ASIDE}/{key}", found.data)
        loop.store.delete(key)
    return f"{key} is set aside, in {SET_ASIDE}/{key}; what is made from it, and it itself, is made again."


def check_records_of_dagster(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about Dagster's own databases, where they are files of the loop's folder."""
    for path in sorted((loop.root / "dagster").rglob("*.db")):
        try:
            with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as database:
                found = str(database.execute("PRAGMA integrity_check(1)").fetchone()[0])
        except sqlite3.Error as error:
            found = str(error)
        if found != "ok":
            name = path.relative_to(loop.root).as_posix()
            costs = "Dagster may not know any more what was materialised; tables, models and decisions are not in it"
            yield Finding(f"{name} is damaged ({found}): {costs}.", "bring the folder `dagster` back from a backup")


def check_leftovers(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about files that an interrupted process has left; they cost nothing but room."""
    if not isinstance(loop.store, LocalStore):
        return
    now = time.time()
    for path in sorted(_hidden(loop.store.root)):
        if now - path.lstat().st_mtime > _LEFT_AFTER:
            name = path.relative_to(loop.store.root).as_posix()
            sentence = f"{name} was left by a process that ended while it wrote; it is used by nobody."
            yield Finding(sentence, "it can be deleted", lambda name=name: _delete(loop, name))  # type: ignore[misc]


def _hidden(root: Path) -> Iterator[Path]:
    """What stores leave where they are interrupted: hidden, and named so that nothing else is taken for it."""
    for path in root.rglob(".*"):
        if path.name.endswith(_LEFT) and not any(part.startswith(".") for part in path.relative_to(root).parts[:-1]):
            yield path


def _delete(loop: LoopFolder, name: str) -> str:
    loop.store.delete(name)
    return f"{name} is deleted."
