"""Decisions on record: numbered entries, each created once and never changed, the same in a folder and in a bucket.

There is no lock. Whoever wants to decide reads all entries, decides, and creates the next number; where another was
faster, the creation fails, and the loser reads anew and decides anew. Each entry holds the checksum of the one before,
so that one that was removed or exchanged is noticed.
"""

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rlhf_dagster.common.sealed import CHECKSUM, read_as, seal, unseal
from rlhf_dagster.errors import Damaged
from rlhf_dagster.storage.base import Store

_WRITER, _BEFORE, _LOST = "_writer", "_before", "_lost"
_AT_ONCE = 16
_log = logging.getLogger("rlhf_dagster.lineage")
Decide = Callable[[Sequence[dict[str, Any]]], Mapping[str, Any] | None]


@dataclass(frozen=True)
class Entry:
    """One entry of a journal, as it was found."""

    number: int
    key: str
    values: dict[str, Any] | None
    """None where the entry cannot be read."""
    checksum: str = ""
    before: str | None = None
    """The checksum of the entry before, as this one states it."""
    problem: str = ""
    """Why the entry cannot be read."""
    torn: bool = False
    """It ends in the middle, as after a power loss: what it was going to say was never confirmed to anybody."""


@dataclass(frozen=True)
class Journal:
    """The entries in the folder ``folder`` of a store."""

    store: Store
    folder: str
    kind: type[Any] | None = None
    """The dataclass whose fields an entry has, each and no other; one that has others cannot be read."""
    _whole: dict[str, Entry] = field(default_factory=dict, repr=False, compare=False)
    """Entries that were read: they never change."""

    def entries(self) -> list[dict[str, Any]]:
        """What every readable entry says, oldest first. Torn ones are left out, and so said in the log.

        Raises Damaged where an entry that was whole once cannot be read: it may have decided what is asked here.
        """
        return _readable(self._found())

    def last(self) -> dict[str, Any] | None:
        """The newest entry, without reading the others; None without any."""
        for key in reversed(self._keys()):
            readable = _readable([self._read(key)])
            if readable:
                return readable[0]
        return None

    def append(self, decide: Decide) -> dict[str, Any] | None:
        """Write what ``decide`` says after it was shown all entries; None, and nothing written, where it says None.

        ``decide`` is called anew with the new state whenever somebody else was faster.
        """
        while True:
            found = self._found()
            values = decide(_readable(found))
            if values is None:
                return None
            if self._create(found, values):
                return dict(values)

    def problems(self) -> list[str]:
        """Sentences about entries that cannot be read, are missing, or were exchanged."""
        self._whole.clear()
        found = self._found()
        said = [entry.problem for entry in found if entry.problem]
        whole = [entry for entry in found if not entry.problem]
        for earlier, later in pairwise(whole):
            between = range(earlier.number + 1, later.number)
            if later.before not in (None, earlier.checksum) and not _is_lost(earlier):
                gap = f"entry {between[0]:06d}" if between else "another entry"
                said.append(f"{later.key} was written after {gap} of {self.folder}, which is not there any more.")
        return said

    def repair(self) -> list[str]:
        """Set unreadable entries aside, into ``damaged/``, and put in their place that they are lost; says what was."""
        self._whole.clear()
        done = []
        for entry in self._found():
            if not entry.problem:
                continue
            there = self.store.get(entry.key)
            if there is not None:
                self.store.put(f"damaged/{entry.key}", there.data)
            self.store.put(entry.key, seal({_LOST: True, _WRITER: uuid.uuid4().hex}))
            self._whole.clear()
            done.append(
                f"{entry.key} could not be read and counts no more; what is left of it is in damaged/{entry.key}."
            )
        return done

    def _create(self, found: Sequence[Entry], values: Mapping[str, Any]) -> bool:
        number = found[-1].number + 1 if found else 1
        whole = [entry for entry in found if not entry.problem]
        before = whole[-1].checksum if whole else ""
        data = seal({**values, _WRITER: uuid.uuid4().hex, _BEFORE: before})
        return self.store.create(f"{self.folder}/{number:06d}.json", data)

    def _keys(self) -> list[str]:
        keys = [key for key in self.store.list(self.folder) if _number(key) is not None]
        return sorted(keys, key=lambda key: _number(key) or 0)

    def _found(self) -> list[Entry]:
        """All entries, several asked for at once, since each may be a request to a service."""
        keys = self._keys()
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(self._read_once, keys))

    def _read_once(self, key: str) -> Entry:
        entry = self._whole.get(key) or self._read(key)
        if not entry.problem:
            self._whole[key] = entry
        return entry

    def _read(self, key: str) -> Entry:
        number, found = _number(key) or 0, self.store.get(key)
        data = b"" if found is None else found.data
        try:
            values = unseal(data, key)
        except Damaged as damaged:
            return Entry(number, key, None, problem=str(damaged), torn=not data.strip(b"\0").endswith(b"\n"))
        before = values.pop(_BEFORE, None)
        values.pop(_WRITER, None)
        if self.kind is not None and not values.get(_LOST):
            try:
                read_as(self.kind, values, key)
            except Damaged as damaged:
                return Entry(number, key, None, problem=str(damaged))
        return Entry(number, key, values, json.loads(data).get(CHECKSUM, ""), before)


def _readable(found: Sequence[Entry]) -> list[dict[str, Any]]:
    for entry in found:
        if entry.problem and not entry.torn:
            raise Damaged(f"{entry.problem} `rlhf check LOOP --repair` sets it aside and says what that changes.")
        if entry.torn:
            _log.warning("%s It is left out; `rlhf check LOOP --repair` mends it.", entry.problem)
    return [entry.values for entry in found if entry.values is not None and not _is_lost(entry)]


def _is_lost(entry: Entry) -> bool:
    return bool(entry.values and entry.values.get(_LOST))


def _number(key: str) -> int | None:
    """The number in ``folder/000017.json``; None for other names."""
    stem, _, extension = key.rpartition("/")[2].rpartition(".")
    return int(stem) if extension == "json" and stem.isdecimal() and stem.isascii() else None
