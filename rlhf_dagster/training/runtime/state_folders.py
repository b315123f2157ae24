"""Folders of unfinished training's states: named when they are whole, checked file by file before they are used.

A state is a folder ``state-STEP``. Its :data:`STATE_RECORD` is written last and says whose state it is (the training's
identity, see :func:`~rlhf_dagster.training.runtime.resuming.fingerprint`) and the SHA-256 of every other file.
Importing this imports no torch.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.files import make_folder, sync_folder, sync_tree
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import Damaged
from rlhf_dagster.storage.base import LAST

STATE_RECORD = LAST
"""A store has it last, too, so that a copy there is whole where its record is."""
OLD_IDENTITY, OLD_SIZES = "identity.txt", "sizes.json"
"""What version 0.1 wrote instead: the identity beside its states, and in each state the sizes of its files."""
BESIDE = ".state-"
"""Prefix of what is being written."""


def states_in(folder: Path) -> list[Path]:
    """The states in a folder, oldest first."""
    return sorted(folder.glob("state-*"))


def state_name(step: int) -> str:
    return f"state-{step:09d}"


def step_of(state: str) -> int:
    """The step after which a state of this name was written; -1 for other names."""
    number = state.removeprefix("state-")
    return int(number) if number != state and number.isdecimal() else -1


def write_folder(target: Path, identity: str, fill: Callable[[Path], None]) -> None:
    """Let ``fill`` write into a new folder, which gets the name ``target`` once all of it would survive a power loss.

    Raises what ``fill`` raises, and OSError; nothing is left then.
    """
    make_folder(target.parent)
    beside = Path(tempfile.mkdtemp(prefix=BESIDE, dir=target.parent))
    try:
        fill(beside)
        (beside / STATE_RECORD).write_bytes(seal({"identity": identity, "files": _checksums(beside)}))
        sync_tree(beside)
        beside.rename(target)
        sync_folder(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def is_of(folder: Path, identity: str) -> bool:
    """Whether a state is one of the training with this identity, as far as can be told: a damaged record tells nothing.

    Raises UserError where a newer release has written it.
    """
    try:
        return _record_of(folder)["identity"] == identity
    except Damaged:
        return True


def damage(folder: Path) -> str:
    """Why a state's files are not those that were written, for a sentence; empty where they are."""
    try:
        written = _record_of(folder)["files"]
        found = _sizes(folder) if (folder / OLD_SIZES).is_file() else _checksums(folder)
    except (Damaged, OSError) as error:
        return str(error).rstrip(".")
    wrong = [name for name in sorted(written.keys() | found) if written.get(name) != found.get(name)]
    return f"{wrong[0]} is not what was written" if wrong else ""


def _record_of(folder: Path) -> dict[str, Any]:
    if not (folder / STATE_RECORD).is_file() and (folder / OLD_SIZES).is_file():
        return _old_record(folder)
    try:
        record = unseal((folder / STATE_RECORD).read_bytes(), STATE_RECORD)
    except OSError as error:
        raise Damaged(f"{STATE_RECORD} cannot be read ({error.strerror}).") from None
    if not isinstance(record.get("files"), dict) or "identity" not in record:
        raise Damaged(f"{STATE_RECORD} is damaged: it lists no files.")
    return record


def _old_record(folder: Path) -> dict[str, Any]:
    try:
        sizes = parse_json((folder / OLD_SIZES).read_text(encoding="utf-8"))
        identity = (folder.parent / OLD_IDENTITY).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise Damaged(f"{OLD_SIZES} or {OLD_IDENTITY} cannot be read.") from None
    if not isinstance(sizes, dict):
        raise Damaged(f"{OLD_SIZES} is damaged: it lists no files.")
    return {"identity": identity, "files": sizes}


def _checksums(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): _sha256(path) for path in _files(folder)}


def _sizes(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    """A state's files without what is said about them."""
    return [
        path for path in folder.rglob("*") if path.is_file() and path not in (folder / STATE_RECORD, folder / OLD_SIZES)
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
