"""Writing files so that no reader sees, and no process killed at any point leaves, half of a file."""

import ctypes
import errno
import fcntl
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rlhf_dagster.common.bounds.odd_files import require_no_odd_file
from rlhf_dagster.errors import UserError

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}
"""What `link` raises where a file system has no hard links."""
_OF_A_DISK = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS}
_AT_FDCWD, _RENAME_NOREPLACE = -100, 1
HIDDEN_FROM = {"owner": 0o077, "group": 0o007, "all": 0}
"""For each setting of `readable_by` the rights that nobody else has to what a loop writes."""


def keep_from_others(readable_by: str) -> None:
    """Let this process, and those that it starts from now on, make files for the readers of a loop alone.

    It never gives a right that the process's umask takes: of several loops in one process the strictest counts.
    """
    before = os.umask(0o077)
    os.umask(before | HIDDEN_FROM[readable_by])


def write_atomically(path: Path, data: bytes, private: bool = False, public: bool = False) -> None:
    """Replace ``path`` whole: readers see the old content or the new.

    Only its owner can read a ``private`` file, and every user a ``public`` one, whatever the umask is.
    """
    with _temporary(path, data, 0o600 if private else 0o666) as temporary:
        if public:
            temporary.chmod(0o644)
        temporary.replace(path)
        sync_folder(path.parent)


def copy_atomically(source: Path, path: Path, private: bool = False) -> None:
    """Replace ``path`` whole with the content of another file, which may be larger than memory."""
    with _temporary(path, b"", 0o600 if private else 0o666) as temporary:
        shutil.copyfile(source, temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)


def write_once(path: Path, data: bytes, private: bool = False) -> bool:
    """Create ``path`` unless it exists; of several writers at once exactly one gets True, and no reader sees it empty.

    The file is written beside and then given its name by a call that fails where ``path`` exists; ``O_EXCL`` alone
    would show it empty.
    """
    with _temporary(path, data, 0o600 if private else 0o666) as temporary:
        if not _name(temporary, path):
            return False
        sync_folder(path.parent)
        return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` between processes; the system frees it when the holder dies."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def locked_at_once(path: Path) -> Iterator[bool]:
    """The same without waiting: False where another process holds the lock."""
    with writing(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the system raises where a folder cannot be written into one sentence."""
    try:
        yield
    except OSError as error:
        what = "make room there, or choose another folder" if _is_full(error) else "choose a folder you can write to"
        raise UserError(f"{folder}: cannot write here ({error.strerror}); {what}.") from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system raises where something that is there cannot be read into one sentence.

    What is no file, as a pipe, is refused before anything waits for it.
    """
    require_no_odd_file(path)
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); look whether the disk is well and the file is yours to read."
        ) from None


def disk_sentence(error: OSError) -> str:
    """One sentence on an error that a disk's owner can mend, wherever it came from; empty for any other."""
    where = f"{error.filename}: " if error.filename else ""
    if error.errno == errno.ENAMETOOLONG:
        return f"{where}{error.strerror}; choose a shorter name."
    if error.errno not in _OF_A_DISK:
        return ""
    return f"{where}{error.strerror}; look whether the disk is well and has room, then run this again."


@contextmanager
def disk_errors_in_sentences() -> Iterator[None]:
    """Turn such an error, wherever it comes from, into a UserError."""
    try:
        yield
    except OSError as error:
        if not (sentence := disk_sentence(error)):
            raise
        raise UserError(sentence) from None


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss. Some file systems cannot, and say so: they are left alone."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Make a folder with all that is in it survive a power loss."""
    for where, _, names in os.walk(folder):
        for name in names:
            with Path(where, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(where))


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, so that they survive a power loss."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for made in missing:
        sync_folder(made.parent)


def move_folder(folder: Path, target: Path) -> None:
    """Give a synced folder the name ``target``, which must be free; from another disk it is copied beside first."""
    make_folder(target.parent)
    try:
        folder.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.new")
        try:
            shutil.copytree(folder, beside)
            sync_tree(beside)
            beside.rename(target)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)
    sync_folder(target.parent)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _temporary(path: Path, data: bytes, mode: int) -> Iterator[Path]:
    """A file beside ``path`` that holds ``data`` on disk; removed at the end if it is still there."""
    temporary = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex}.tmp")
    try:
        with writing(path.parent):
            make_folder(path.parent)
            handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            yield temporary
    finally:
        with suppress(OSError):  # a leftover is hidden, and what it was written for is done or said already
            temporary.unlink()


def _name(temporary: Path, path: Path) -> bool:
    """Give a file its name; returns whether the name was free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_to_free(temporary, path)
    return True


def _rename_to_free(temporary: Path, path: Path) -> bool:
    """The same on a file system without hard links; without this kind of renaming either, under a lock."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(temporary), os.fsencode(path)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_NOREPLACE) == 0:
            return True
        if ctypes.get_errno() == errno.EEXIST:
            return False
    with locked(path.with_name(".names.lock")):
        free = not path.exists()
        if free:
            temporary.rename(path)
        return free


def cache_folder() -> Path:
    """``$RLHF_CACHE``, or the user's cache folder; in the system's temporary folder where there is no user's."""
    if given := os.environ.get("RLHF_CACHE"):
        return Path(given)
    if given := os.environ.get("XDG_CACHE_HOME"):
        return Path(given, "rlhf_dagster")
    try:
        return Path.home() / ".cache" / "rlhf_dagster"
    except RuntimeError:  # no HOME, and no entry in the list of users
        return _own_folder(Path(tempfile.gettempdir(), f"rlhf_dagster-{os.getuid()}"))


def _own_folder(folder: Path) -> Path:
    """A folder in a place where everybody may make some; raises UserError where somebody else has made this one."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise UserError(f"{folder} belongs to somebody else; set RLHF_CACHE to a folder of your own.")
    return folder
