"""The stop cord: anybody can stop training and promotion, and a person lets them go on.

The cord is ``STOP`` in the loop's store. `rlhf stop`, a sensor that counts annotators' flags, and people who only have
a shell (`echo "the labels are wrong" > STOP`) all write it. The journal ``stops/`` keeps who stopped what and why.
"""

import json
import logging
import math
import os
import stat
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.bounds.odd_files import leads_nowhere, odd_kind
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.storage.base import Store
from rlhf_dagster.storage.local import LocalStore

STOP_FILE, STOPS, RESERVE = "STOP", "stops", ".stop-reserve"
_RESERVED = 4096
"""Bytes of disk that a stop on a full disk can have: a block of most file systems."""
_LOOK_EVERY = 3.0
"""Seconds between two looks into a bucket, where each is a request."""
_log = logging.getLogger("rlhf_dagster.lineage")


@dataclass(frozen=True)
class Stop:
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""

    @property
    def sentence(self) -> str:
        return f"Stopped by {self.by}: {self.reason.rstrip('.')}. `rlhf resume` lets the loop go on."


def read_stop(store: Store) -> Stop | None:
    """Who has stopped the loop in ``store`` and why; None while it may go on."""
    if odd := _odd_kind(store):
        return Stop(f"{odd} {STOP_FILE}", "no reason was given", _now())
    found = store.get(STOP_FILE)
    if found is None:
        return None
    text = found.data.decode("utf-8", "replace").strip()
    try:
        values = parse_json(text)
        return Stop(str(values["by"]), str(values["reason"]), str(values["at"]))
    except (ValueError, TypeError, KeyError):
        return Stop(f"the file {STOP_FILE}", " ".join(text.split()) or "no reason was given", _written_at(store))


def pull(store: Store, by: str, reason: str) -> Stop:
    """Stop the loop, unless it is stopped already; returns the stop that holds. It works on a full disk, too."""
    stop = Stop(by, reason, _now())
    # What a terminal of another encoding sends is no UTF-8, and no reason not to stop: it becomes its JSON escape.
    text = json.dumps(asdict(stop), ensure_ascii=False) + "\n"
    if not _create(store, text.encode("utf-8", "backslashreplace")):
        return read_stop(store) or stop
    try:
        _record(store, {"action": "stop", **asdict(stop)})
    except UserError as error:
        _log.warning("The loop is stopped, but the stop is not in %s: %s", STOPS, error)
    return stop


def reset(store: Store, by: str) -> Stop | None:
    """Let the loop go on; returns the stop that ends, None where there was none."""
    stop = read_stop(store)
    if stop is not None:
        _record(store, {"action": "resume", "by": by, "reason": "", "at": _now()})
        store.delete(STOP_FILE)
        reserve(store)
    return stop


class StopCord:
    """The cord as a training looks at it after each step: in a bucket, at most every few seconds."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pause = 0.0 if isinstance(store, LocalStore) else _LOOK_EVERY
        self._looked = -math.inf

    def sentence(self) -> str:
        """Why to stop; empty while there is no reason that was looked for."""
        if time.monotonic() - self._looked < self._pause:
            return ""
        self._looked = time.monotonic()
        stop = read_stop(self._store)
        return stop.sentence if stop else ""


def resumes(store: Store) -> int:
    """How often the loop was let go on after a stop."""
    return sum(entry.get("action") == "resume" for entry in Journal(store, STOPS).entries())


def reserve(store: Store) -> None:
    """Set disk aside with which the loop can be stopped when there is no other left."""
    if isinstance(store, LocalStore) and not (store.root / RESERVE).exists():
        store.put(RESERVE, b"the disk was full\n".ljust(_RESERVED))


def _create(store: Store, data: bytes) -> bool:
    try:
        return store.create(STOP_FILE, data)
    except UserError:
        if not isinstance(store, LocalStore):
            raise
        return _create_without_room(store.root, data)


def _create_without_room(root: Path, data: bytes) -> bool:
    """Make the file of the disk that was set aside: a renaming takes no room. Without any, an empty file must do."""
    path, reserved = root / STOP_FILE, root / RESERVE
    if path.exists():
        return False
    if not reserved.is_file():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o666))
        return True
    reserved.rename(path)
    if len(data) <= _RESERVED:
        with path.open("r+b") as file:
            file.write(data.ljust(_RESERVED))
    return True


def _odd_kind(store: Store) -> str:
    """What has the cord's name and is no file; empty where nothing has. Whoever has put it there wants a stop."""
    if not isinstance(store, LocalStore):
        return ""
    path = store.root / STOP_FILE
    if leads_nowhere(path):
        return "the link"
    try:
        mode = path.stat().st_mode
    except OSError:
        return ""
    return "the folder" if stat.S_ISDIR(mode) else odd_kind(mode).replace("a ", "the ", 1)


def _written_at(store: Store) -> str:
    if not isinstance(store, LocalStore):
        return _now()
    return datetime.fromtimestamp((store.root / STOP_FILE).stat().st_mtime, UTC).isoformat(timespec="seconds")


def _record(store: Store, entry: Mapping[str, Any]) -> None:
    Journal(store, STOPS).append(lambda _: entry)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
