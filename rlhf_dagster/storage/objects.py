"""A store in a bucket: S3, Google Cloud Storage, Azure, or the memory of this process, by obstore (an extra).

Conditional writes are the services' own: `If-None-Match` and `If-Match` on S3, generations on Google Cloud Storage.
Keys and addresses of endpoints come from the environment, as for every client of these services.
"""

import hashlib
import io
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

from rlhf_dagster.common.extras import install_extras
from rlhf_dagster.common.files import cache_folder, make_folder, writing
from rlhf_dagster.errors import UserError, first_line
from rlhf_dagster.storage.base import LAST, Found, ReplacedError, is_hidden, read_with, require_key

SCHEMES = ("s3", "gs", "az", "memory")
_READ_AHEAD = 1 << 20
"""Bytes asked for at once where little is read."""
_PATIENCE = timedelta(seconds=60)
"""How long a service that has answered before is tried again: servers restart."""
_answered: set[str] = set()
"""Addresses that have answered this process. Of others, a few tries say at once that the address may be wrong."""
_memory: dict[str, Any] = {}
"""The stores in this process's memory, by address."""


class ObjectStore:
    """See :class:`rlhf_dagster.storage.base.Store`. A version is the service's tag or generation."""

    def __init__(self, address: str) -> None:
        """Raises UserError where obstore is missing, or cannot read the address."""
        self._address = address.rstrip("/")
        self._patient = self._address in _answered
        self._store = _opened(self._address, self._patient)

    def __repr__(self) -> str:
        return f"ObjectStore({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectStore) and self.address == other.address

    def __hash__(self) -> int:
        return hash(self.address)

    def __reduce__(self) -> tuple[type["ObjectStore"], tuple[str]]:
        return ObjectStore, (self.address,)

    @property
    def address(self) -> str:
        return self._address

    def get(self, key: str) -> Found | None:
        import obstore

        with self._said():
            try:
                answer = obstore.get(self._store, require_key(key))
                return Found(bytes(answer.bytes()), _version(answer.meta))
            except FileNotFoundError:
                return None

    def put(self, key: str, data: bytes | Path, private: bool = False) -> None:
        self._put(require_key(key), data)

    def create(self, key: str, data: bytes, private: bool = False) -> bool:
        from obstore.exceptions import AlreadyExistsError

        while True:
            try:
                self._put(require_key(key), data, mode="create")
            except AlreadyExistsError:
                there = self.get(key)
                if there is None:  # S3 says so of two who write at once, too, and then neither may have written
                    continue
                # The answer to our own first try may have been lost, and the client has tried once more.
                return there.data == data
            return True

    def replace(self, key: str, data: bytes, version: str) -> bool:
        from obstore.exceptions import PreconditionError

        kind, _, value = version.partition(":")
        while True:
            try:
                self._put(require_key(key), data, mode={kind: value})
            except (PreconditionError, FileNotFoundError):
                there = self.get(key)
                if there is not None and there.version == version and there.data != data:
                    continue
                return there is not None and there.data == data
            return True

    def exists(self, key: str) -> bool:
        return self._head(key) is not None

    def list(self, folder: str = "") -> list[str]:
        import obstore

        prefix = require_key(folder) if folder else None
        with self._said():
            found = [item["path"] for page in obstore.list(self._store, prefix) for item in page]
        return sorted(key for key in found if not is_hidden(key))

    def open(self, key: str) -> BinaryIO:
        meta = self._head(key)
        if meta is None:
            raise FileNotFoundError(key)
        reader = _Reader(meta["size"], lambda start, end: self._range(key, _version(meta), start, end))
        return cast("BinaryIO", io.BufferedReader(reader, _READ_AHEAD))

    def local(self, key: str) -> Path:
        meta = self._head(key)
        if meta is None:
            raise FileNotFoundError(key)
        name = hashlib.sha256(f"{self.address} {key} {_version(meta)} {meta['last_modified']}".encode()).hexdigest()
        path = cache_folder() / "objects" / name[:32] / Path(key).name
        if not path.exists():
            self._fetch(key, path)
        return path

    def upload(self, folder: Path, into: str) -> None:
        prefix = require_key(into)
        self.delete(prefix)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        for name in sorted(names, key=lambda name: name == LAST):
            self._put(f"{prefix}/{name}", folder / name)

    def download(self, folder: str, into: Path) -> None:
        for key in self.list(folder):
            self._fetch(key, into / key.removeprefix(f"{require_key(folder)}/"))

    def delete(self, key: str) -> None:
        import obstore

        inside = self.list(key)
        whole = f"{require_key(key)}/{LAST}"
        with self._said():
            for one in [found for found in (whole,) if found in inside]:
                obstore.delete(self._store, one)
            for one in [require_key(key), *inside]:
                try:
                    obstore.delete(self._store, one)
                except FileNotFoundError:  # some services say so, others do not
                    continue

    def _head(self, key: str) -> Any | None:
        import obstore

        with self._said():
            try:
                return obstore.head(self._store, require_key(key))
            except FileNotFoundError:
                return None

    def _range(self, key: str, version: str, start: int, end: int) -> bytes:
        """Bytes ``start`` to ``end`` (exclusive) of that version; raises ReplacedError where another one is there."""
        import obstore
        from obstore.exceptions import PreconditionError

        kind, _, value = version.partition(":")
        condition = {"if_match": value} if kind == "e_tag" else {"version": value}
        with self._said():
            try:
                answer = obstore.get(
                    self._store, require_key(key), options=cast("Any", condition | {"range": (start, end)})
                )
                return bytes(answer.bytes())
            except (PreconditionError, FileNotFoundError):
                raise ReplacedError(key) from None

    def _put(self, key: str, data: bytes | Path, **options: Any) -> None:
        import obstore

        with self._said():
            try:
                obstore.put(self._store, key, data, **options)
            except FileNotFoundError:
                if isinstance(options.get("mode"), dict):  # what was to be replaced is gone
                    raise
                raise UserError(f"{self.address}: there is no such bucket; make it, or correct `root`.") from None

    def _fetch(self, key: str, path: Path) -> None:
        """Download an object beside ``path`` and give it its name when it is whole."""
        with writing(path.parent):
            make_folder(path.parent)
            beside = path.with_name(f".fetched-{uuid.uuid4().hex}")
            file = beside.open("xb")
        try:
            with file:
                read_with(self, key, lambda source: _copy(source, file))
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Turn a service's errors into a sentence, but for those that are answers."""
        from obstore import exceptions

        answers = (
            FileNotFoundError,
            exceptions.AlreadyExistsError,
            exceptions.PreconditionError,
            exceptions.NotFoundError,
        )
        try:
            yield
        except answers:
            self._has_answered()
            raise
        except (exceptions.BaseError, OSError, ValueError) as error:
            raise UserError(
                f"{self.address} gives no answer ({_short(error)}); check the address, the network and the credentials "
                "in the environment."
            ) from None
        self._has_answered()

    def _has_answered(self) -> None:
        """Be patient from now on."""
        if not self._patient:
            _answered.add(self._address)
            self._patient, self._store = True, _opened(self._address, patient=True)


class _Reader(io.RawIOBase):
    """An object of ``size`` bytes as Python's libraries expect a file; ``get`` takes where to begin and to end."""

    def __init__(self, size: int, get: Callable[[int, int], bytes]) -> None:
        self._size, self._get, self._at = size, get, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        before = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(before + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        end = min(self._at + len(buffer), self._size)
        if end <= self._at:
            return 0
        data = self._get(self._at, end)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _copy(source: BinaryIO, file: BinaryIO) -> None:
    """Make a file hold what ``source`` reads."""
    with writing(Path(file.name).parent):
        file.seek(0)
        file.truncate()
        shutil.copyfileobj(source, file, _READ_AHEAD)


def _opened(address: str, patient: bool) -> Any:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import MemoryStore, from_url
    except ImportError:
        raise UserError(
            f"A loop at {address} needs obstore, which is not installed; `{install_extras('objects')}`."
        ) from None
    if address.startswith("memory:"):
        return _memory.setdefault(address, MemoryStore())
    try:
        patience: Any = {"max_retries": 10_000, "retry_timeout": _PATIENCE} if patient else None
        return from_url(address, retry_config=patience)
    except (BaseError, ValueError) as error:
        raise UserError(
            f"{address} cannot be a store ({_short(error)}); give an address such as s3://bucket/loop."
        ) from None


def _version(meta: Any) -> str:
    """What the service tells one content from another by; obstore takes exactly the one that is given."""
    return f"version:{meta['version']}" if meta.get("version") and not meta.get("e_tag") else f"e_tag:{meta['e_tag']}"


def _short(error: BaseException) -> str:
    """An error's first line, without the long text of a service's answer."""
    return first_line(error)[:200]
