"""The verbs of a store, and what holds for each of them wherever the bytes are."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

from rlhf_dagster.errors import UserError

LAST = "manifest.json"
"""Of a folder, the file that is written last and deleted first: where it is, the folder is whole."""
_T = TypeVar("_T")
_SEGMENT = re.compile(r"[^/\x00]+")


@dataclass(frozen=True)
class Found:
    """An object's bytes, and what tells them from other bytes under the same key."""

    data: bytes
    version: str


class ReplacedError(Exception):
    """An object was replaced while it was read in parts."""


class Store(Protocol):
    """Bytes under keys such as ``assets/prompts.parquet``.

    Every write is whole: a reader sees all of it or none, also after a crash at any moment, and once a call returns,
    what it wrote survives a power loss. A *folder* is all keys that begin with its name and a slash. Names that begin
    with a dot are the store's own. All failures of disk and network are raised as
    :class:`~rlhf_dagster.errors.UserError`.
    """

    @property
    def address(self) -> str:
        """Opens the same store again (:func:`rlhf_dagster.storage.known.open_store`), in any process."""

    def get(self, key: str) -> Found | None:
        """What is under ``key``; None without it."""

    def put(self, key: str, data: bytes | Path, private: bool = False) -> None:
        """Write or replace; the content of a file is not read into memory.

        Where files have owners, only the owner of a ``private`` one can read it.
        """

    def create(self, key: str, data: bytes, private: bool = False) -> bool:
        """Write unless something is there; of several writers at once exactly one gets True.

        Data should tell its writer: one whose answer was lost on the way finds its own data there, and has won.
        """

    def replace(self, key: str, data: bytes, version: str) -> bool:
        """Write if what is there still has ``version``; of several writers at once at most one gets True."""

    def exists(self, key: str) -> bool:
        """Whether there is something under ``key``."""

    def list(self, folder: str = "") -> list[str]:
        """The keys in a folder and in the folders in it, sorted; of the whole store by default."""

    def open(self, key: str) -> BinaryIO:
        """A seekable reader of what is there now; raises FileNotFoundError without the key.

        It reads these bytes or, where they are replaced meanwhile, may raise
        :class:`ReplacedError`: see :func:`read_with`.
        """

    def local(self, key: str) -> Path:
        """A file on this machine with the same content, not to be written; raises FileNotFoundError without the key."""

    def upload(self, folder: Path, into: str) -> None:
        """Make a folder of the store hold what is in ``folder``, and nothing else; ``folder`` itself may be gone after.

        :data:`LAST` is there last. What was there before is replaced.
        """

    def download(self, folder: str, into: Path) -> None:
        """Copy a folder's objects into a local folder."""

    def delete(self, key: str) -> None:
        """Remove an object or a folder; :data:`LAST` goes first. Nothing there is no error."""


def update(store: Store, key: str, change: Callable[[bytes | None], bytes], private: bool = False) -> None:
    """Write what ``change`` makes of what is there (None: nothing); called anew where somebody else was faster."""
    while True:
        found = store.get(key)
        data = change(found.data if found else None)
        if found is None:
            done = store.create(key, data, private)
        else:
            done = data == found.data or store.replace(key, data, found.version)
        if done:
            return


def read_with(store: Store, key: str, read: Callable[[BinaryIO], _T]) -> _T:
    """What ``read`` makes of an object that is too large to get whole; called anew where it was replaced meanwhile.

    Raises what :meth:`Store.open` and ``read`` raise.
    """
    while True:
        try:
            with store.open(key) as file:
                return read(file)
        except ReplacedError:
            continue


def require_key(key: str) -> str:
    """``key`` without a slash at its end; raises UserError where it leads out of the store."""
    trimmed = key.rstrip("/")
    segments = trimmed.split("/")
    if any(segment in (".", "..") or not _SEGMENT.fullmatch(segment) for segment in segments):
        raise UserError(f"{key!r} cannot be the name of something in a store; use names separated by single slashes.")
    return trimmed


def is_hidden(key: str) -> bool:
    """Whether a key is the store's own, such as a file that is being written."""
    return any(segment.startswith(".") for segment in key.split("/"))
