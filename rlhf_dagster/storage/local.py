"""A store in a folder: synced, atomic, on any file system, with or without hard links."""

import hashlib
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO

from rlhf_dagster.common.bounds.odd_files import leads_nowhere
from rlhf_dagster.common.files import (
    copy_atomically,
    locked,
    move_folder,
    reading,
    sync_folder,
    sync_tree,
    write_atomically,
    write_once,
    writing,
)
from rlhf_dagster.storage.base import Found, is_hidden, require_key


class LocalStore:
    """See :class:`rlhf_dagster.storage.base.Store`. A version is a hash of the content."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def __repr__(self) -> str:
        return f"LocalStore({str(self.root)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalStore) and self.root == other.root

    def __hash__(self) -> int:
        return hash(self.root)

    @property
    def address(self) -> str:
        return str(self.root)

    def get(self, key: str) -> Found | None:
        path = self._path(key)
        try:
            with reading(path):
                data = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        return Found(data, hashlib.sha256(data).hexdigest())

    def put(self, key: str, data: bytes | Path, private: bool = False) -> None:
        if isinstance(data, Path):
            copy_atomically(data, self._path(key), private)
        else:
            write_atomically(self._path(key), data, private)

    def create(self, key: str, data: bytes, private: bool = False) -> bool:
        return write_once(self._path(key), data, private)

    def replace(self, key: str, data: bytes, version: str) -> bool:
        with locked(self.root / ".replace.lock"):
            found = self.get(key)
            if found is None or found.version != version:
                return False
            path = self._path(key)
            write_atomically(path, data, private=not path.stat().st_mode & 0o077)
            return True

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with reading(path):
            return path.is_file()

    def list(self, folder: str = "") -> list[str]:
        start = self._path(folder) if folder else self.root
        with reading(start):
            # A link that leads nowhere has taken its key; whoever reads it is told.
            found = [path for path in start.rglob("*") if path.is_file() or leads_nowhere(path)]
            keys = [path.relative_to(self.root).as_posix() for path in found]
        return sorted(key for key in keys if not is_hidden(key))

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        with reading(path):
            return path.open("rb")

    def local(self, key: str) -> Path:
        path = self._path(key)
        if not path.exists():
            raise FileNotFoundError(key)
        return path

    def upload(self, folder: Path, into: str) -> None:
        target = self._path(into)
        with writing(target.parent):
            sync_tree(folder)
            self._set_aside(target)
            move_folder(folder, target)

    def download(self, folder: str, into: Path) -> None:
        with writing(into):
            shutil.copytree(self._path(folder), into, dirs_exist_ok=True)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with writing(path.parent):
            if path.is_dir() and not path.is_symlink():
                self._set_aside(path)
            elif path.exists() or leads_nowhere(path):
                path.unlink()
                sync_folder(path.parent)

    def _set_aside(self, folder: Path) -> None:
        """Take a folder's name away before its files, so that no half of it is ever seen under the name."""
        if folder.exists():
            gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.gone")
            folder.rename(gone)
            sync_folder(folder.parent)
            shutil.rmtree(gone, ignore_errors=True)

    def _path(self, key: str) -> Path:
        return self.root / require_key(key)
