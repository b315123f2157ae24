"""Writing files so that no reader sees, and no process killed at any point leaves, half of a file."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rlhf_dagster.errors import UserError


def write_atomically(path: Path, data: bytes, private: bool = False) -> None:
    """Replace ``path`` whole: readers see the old content or the new. Only its owner can read a ``private`` file."""
    with _temporary(path, data, 0o600 if private else 0o666) as temporary:
        temporary.replace(path)


def write_once(path: Path, data: bytes) -> bool:
    """Create ``path`` unless it exists; of several writers at once exactly one gets True, and no reader sees it empty.

    The file is made by a hard link, which fails where ``path`` exists and appears with all its content; ``O_EXCL`` has
    only the first of these properties.
    """
    with _temporary(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` between processes; the system frees it when the holder dies."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write here ({error.strerror}); choose a folder you can write to."
        ) from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _temporary(path: Path, data: bytes, mode: int = 0o666) -> Iterator[Path]:
    """A file beside ``path`` that holds ``data`` on disk; removed at the end if it is still there."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except OSError as error:
        raise UserError(
            f"{path.parent}: cannot write here ({error.strerror}); choose a folder you can write to."
        ) from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def cache_folder() -> Path:
    """``$RLHF_CACHE``, or the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rlhf_dagster"
    return Path(os.environ.get("RLHF_CACHE", default))
