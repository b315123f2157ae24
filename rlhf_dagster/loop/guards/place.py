"""Where a loop lives, so that a folder that was copied does not do the work of its original once more.

A loop's folder keeps its own place in ``place.json``. Whoever is about to write asks :func:`require_in_place`: a
folder that was moved goes on, and a copy of one that is still there is refused until somebody adopts it. What a loop
keeps in a bucket is not copied with its folder, so that such a loop has no place.
"""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rlhf_dagster.common.files import reading, write_atomically, write_once
from rlhf_dagster.common.processes import machine_id, own_host
from rlhf_dagster.common.sealed import read_as, seal, unseal
from rlhf_dagster.config.loop import LoopConfig, load_config
from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.label_store import ledger_address
from rlhf_dagster.loop.ledger_mark import new_id
from rlhf_dagster.storage.known import is_remote

PLACE_FILE = "place.json"
_log = logging.getLogger("rlhf_dagster.loop")


@dataclass(frozen=True)
class LoopPlace:
    """A folder of a machine, and the loop that lives there."""

    loop: str
    """An id made at random; copies have the same."""
    path: str
    host: str
    """The machine's name, for people."""
    machine: str
    """Its id."""
    inode: int
    """The folder's number on its disk, which is the same for all machines that share the disk."""
    gone_to: str = ""
    """The folder in which the loop was adopted since; empty where it still lives here."""

    @property
    def sentence(self) -> str:
        """For people."""
        return self.path if self.machine == machine_id() else f"{self.path} on {self.host}"


def require_in_place(loop: LoopFolder) -> None:
    """Raise UserError where the folder is a copy, or its loop was adopted elsewhere.

    The first who asks writes down the place. A folder that was moved gets its new place, and a warning says so.
    """
    if is_remote(loop.address):
        return
    kept = _read(loop.root) or _first(loop.root)
    if why := _why_not(loop.root, kept):
        raise UserError(f"{why} `rlhf adopt {loop.said}` lets it go on here instead, or `--new` beside that one.")
    here = _here(loop.root, kept.loop)
    if kept.machine == here.machine and kept.path != here.path:
        _write(here)
        _log.warning("%s was moved from %s, and goes on.", here.path, kept.path)


def place_notice(loop: LoopFolder) -> str:
    """Why nothing may be written to a loop, for those who only read it; empty where it may."""
    kept = None if is_remote(loop.address) else _read(loop.root)
    return _why_not(loop.root, kept) if kept else ""


def adopt_copy(loop: LoopFolder) -> str:
    """Let the loop live in this folder, and, where it can be reached, no more where else it lives.

    Returns what became of that other one, as a sentence; empty where there is none. Raises UserError where the folder
    is no copy.
    """
    kept = _require_copy(loop)
    here, other = _here(loop.root, kept.loop), _elsewhere(loop.root, kept)
    if other is not None:
        _write(replace(other, gone_to=here.path))
    _write(here)
    if other is not None:
        return f"{other.path} writes nothing any more."
    elsewhere = kept.machine != here.machine
    return f"Nothing may go on at {kept.sentence}, which cannot be told from here." if elsewhere else ""


def make_loop_of_its_own(loop: LoopFolder) -> None:
    """Let a copy be another loop, beside the one that it was copied from.

    Raises UserError where the folder is no copy, or where both would have one ledger or one label server.
    """
    kept = _require_copy(loop)
    _require_nothing_shared(loop, kept)
    _write(_here(loop.root, new_id()))


def _why_not(root: Path, kept: LoopPlace) -> str:
    """A sentence on why nothing may be written here; empty where it may."""
    if kept.gone_to:
        return f"{root}: this loop lives in {kept.gone_to} since it was adopted there."
    if kept.machine == machine_id():
        other = _elsewhere(root, kept)
        return f"{root} is a copy of the loop in {other.path}, which is still there." if other else ""
    if kept.inode == _here(root, kept.loop).inode:  # another machine has the same disk
        return ""
    return f"{root} is a copy of the loop in {kept.sentence}, which may be at work there."


def _elsewhere(root: Path, kept: LoopPlace) -> LoopPlace | None:
    """Where else on this machine the loop of a folder lives, by what the folder knows; None where nowhere."""
    if kept.machine != machine_id():
        return None
    for there in (Path(path) for path in (kept.gone_to, kept.path) if path):
        if there.is_dir() and not there.samefile(root):
            found = _read(there)
            if found is not None and found.loop == kept.loop:
                return found
    return None


def _require_copy(loop: LoopFolder) -> LoopPlace:
    kept = None if is_remote(loop.address) else _read(loop.root)
    if kept is None or not _why_not(loop.root, kept):
        raise UserError(f"{loop.root} is no copy of another loop's folder, so there is nothing to adopt.")
    return kept


def _require_nothing_shared(loop: LoopFolder, kept: LoopPlace) -> None:
    config, theirs = loop.config, _config_elsewhere(loop, kept) or loop.config
    ledger = ledger_address(config, loop.root)
    if ledger == ledger_address(theirs, Path(kept.path)):
        raise UserError(
            f"The ledger {ledger} is that of the loop in {kept.sentence} too; copy it (rlhf ledger copy), and set "
            "`ledger` in loop.yaml to the copy first."
        )
    if config.label_store.kind == "label_studio" and config.label_store.url == theirs.label_store.url:
        raise UserError(
            f"The pages at {config.label_store.url} are those of the loop in {kept.sentence} too; set `label_store` "
            "in loop.yaml to another server, or to `kind: embedded`, first."
        )


def _config_elsewhere(loop: LoopFolder, kept: LoopPlace) -> LoopConfig | None:
    """The settings of the loop that a folder was copied from; None where they cannot be read from here."""
    try:
        other = _elsewhere(loop.root, kept)
        return load_config(Path(other.path)) if other else None
    except UserError:
        return None


def _here(root: Path, loop: str) -> LoopPlace:
    return LoopPlace(loop, str(root), own_host(), machine_id(), root.stat().st_ino if root.exists() else 0)


def _first(root: Path) -> LoopPlace:
    root.mkdir(parents=True, exist_ok=True)
    place = _here(root, new_id())
    if write_once(root / PLACE_FILE, seal(asdict(place))):
        return place
    return _read(root) or place


def _write(place: LoopPlace) -> None:
    write_atomically(Path(place.path) / PLACE_FILE, seal(asdict(place)))


def _read(root: Path) -> LoopPlace | None:
    file = root / PLACE_FILE
    try:
        with reading(file):
            data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        raise Damaged(f"{file} is a folder; delete it, and the loop lives where it is.") from None
    try:
        return read_as(LoopPlace, unseal(data, str(file)), str(file))
    except Damaged as damaged:
        raise Damaged(f"{str(damaged).rstrip('.')}; delete it, and the loop lives where it is.") from None
