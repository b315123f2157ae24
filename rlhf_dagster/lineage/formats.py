"""The format of what a loop keeps: a newer one is refused, an older one is brought up to date, step by step."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.sealed import FORMAT, FORMAT_KEY, seal, unseal
from rlhf_dagster.common.version import __version__
from rlhf_dagster.errors import Damaged
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.lineage.registry import APPROVALS, HISTORY, PINS, POLICIES
from rlhf_dagster.lineage.stop_cord import STOPS, reserve
from rlhf_dagster.records.parquet import is_sealed, seal_parquet
from rlhf_dagster.storage.base import LAST, Store, update

FORMAT_FILE = "format.json"
KEPT_FOLDERS = ("answers", "assets", "imports", "models", "quarantine", "registry", "stops")
"""The folders of a loop's store."""
_OLD_FOLDERS = tuple(folder for folder in KEPT_FOLDERS if folder not in ("answers", "stops"))
"""Those that version 0.1 had: a loop can be stopped before anything else is done with it."""
OLD = "migrated/format-0"
"""Where files are kept that a migration has taken the place of."""
_log = logging.getLogger("rlhf_dagster.lineage")


@dataclass
class Migration:
    """What a migration could not read, and left as it was."""

    left: list[str] = field(default_factory=list)


def prepare_store(store: Store) -> None:
    """Make sure that this release may write to a loop, and give a new loop its format."""
    bring_up_to_date(store)
    if not store.exists(FORMAT_FILE):
        store.create(FORMAT_FILE, seal({"rlhf_dagster": __version__}))
        reserve(store)


def bring_up_to_date(store: Store) -> None:
    """Migrate a loop of an older format; nothing happens to one of this format, or where there is no loop yet.

    Every step can be repeated, also by two at once, and the format is written last: a migration that was killed is
    finished by the next command. Raises UserError where the loop has a newer format.
    """
    found = store.get(FORMAT_FILE)
    if found is not None:
        unseal(found.data, FORMAT_FILE)
        return
    if not any(store.list(folder) for folder in _OLD_FOLDERS):
        return
    migration = Migration()
    for step in _STEPS:
        step(store, migration)
    store.create(FORMAT_FILE, seal({"rlhf_dagster": __version__}))
    reserve(store)
    _log.warning("%s was brought from format 0 (version 0.1) to format %d.", store.address, FORMAT)
    for sentence in migration.left:
        _log.warning("%s", sentence)


def _journals(store: Store, migration: Migration) -> None:
    """Files with one line for each decision become journals with one entry for each."""
    for old, journal in (
        ("registry/history.jsonl", HISTORY),
        ("registry/approvals.jsonl", APPROVALS),
        ("stops.jsonl", STOPS),
    ):
        found = store.get(old)
        if found is None:
            continue
        rows = list(_rows(found.data, old, migration))
        done = len(Journal(store, journal).entries())
        for number, row in enumerate(rows[done:], start=done):
            Journal(store, journal).append(_if_at(number, row))
        store.put(f"{OLD}/{old}", found.data)
        store.delete(old)


def _if_at(number: int, row: dict[str, Any]) -> Callable[[Any], dict[str, Any] | None]:
    """``row``, unless somebody who migrates at the same time has appended it."""
    return lambda entries: row if len(entries) == number else None


def _rows(data: bytes, name: str, migration: Migration) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.decode())
        except ValueError:
            migration.left.append(f"Line {number} of {name} is damaged; it is left out, and kept in {OLD}/{name}.")
            continue
        yield row


def _records(store: Store, migration: Migration) -> None:
    """JSON files get a checksum."""
    for key in [*_json_keys(store), *(key for key in store.list("models") if key.endswith(f"/{LAST}"))]:
        try:
            update(store, key, lambda data, key=key: _sealed(data or b"", key))  # type: ignore[misc]
        except Damaged as damaged:
            migration.left.append(str(damaged))


def _json_keys(store: Store) -> list[str]:
    keys = [key for folder in ("assets", "imports", PINS, POLICIES) for key in store.list(folder)]
    return [key for key in keys if key.endswith(".json")]


def _sealed(data: bytes, key: str) -> bytes:
    if FORMAT_KEY.encode() in data:
        return data
    return seal(unseal(data, key))


def _tables(store: Store, migration: Migration) -> None:
    """Tables get a checksum."""
    keys = [key for folder in ("assets", "imports", "quarantine") for key in store.list(folder)]
    for key in keys:
        found = store.get(key) if key.endswith(".parquet") else None
        if found is None or is_sealed(found.data):
            continue
        if found.data[-4:] != b"PAR1":
            migration.left.append(f"{key} is no Parquet table; it is left as it is.")
            continue
        store.replace(key, seal_parquet(found.data), found.version)


_STEPS: tuple[Callable[[Store, Migration], None], ...] = (_journals, _records, _tables)
