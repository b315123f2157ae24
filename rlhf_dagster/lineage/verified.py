"""Which folders were compared with their digest and are untouched since, so that nothing is read twice for it."""

import json
from pathlib import Path

from rlhf_dagster.common.bounds.json_text import parse_json
from rlhf_dagster.common.files import cache_folder, write_atomically
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.ids import content_hash

_known: dict[tuple[str, str], str] = {}


def is_verified(folder: Path, digest: str) -> bool:
    """Whether this folder had this digest when its files had the sizes, times and inodes that they have now."""
    signature, key = _signature(folder), (str(folder.resolve()), digest)
    if signature and _known.get(key) == signature:
        return True
    try:
        noted = parse_json(_note(*key).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(signature) and noted == signature


def set_verified(folder: Path, digest: str) -> None:
    """Note that the folder has this digest. A note that cannot be written is done without."""
    signature, key = _signature(folder), (str(folder.resolve()), digest)
    _known[key] = signature
    try:
        write_atomically(_note(*key), json.dumps(signature).encode())
    except UserError:
        return


def _note(folder: str, digest: str) -> Path:
    return cache_folder() / "verified" / f"{content_hash('verified', folder, digest)}.json"


def _signature(folder: Path) -> str:
    """A hash of the names, sizes, times of change and inodes of the files in a folder; empty without any."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    rows = []
    for path in files:
        stat = path.stat()
        rows.append(
            [path.relative_to(folder).as_posix(), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        )
    return content_hash("files", rows) if rows else ""
