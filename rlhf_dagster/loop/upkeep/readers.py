"""Who else on the machine can read a loop's files."""

import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rlhf_dagster.common.files import HIDDEN_FROM, reading
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.findings import Finding

_ENTER, _READ = stat.S_IXGRP | stat.S_IXOTH, stat.S_IRGRP | stat.S_IROTH


def check_readers(loop: LoopFolder) -> Iterator[Finding]:
    """A finding where users can read what `readable_by` hides from them, as in a loop of an earlier release.

    The loop's folder itself and its loop.yaml are made by people, who say who may read them.
    """
    allowed = loop.config.readable_by
    hidden = HIDDEN_FROM[allowed]
    found = sorted(path for path in _open_to(loop.root, hidden) if path != loop.root / CONFIG_FILE)
    if not found:
        return
    first, count = found[0].relative_to(loop.root).as_posix(), len(found)
    what = first if count == 1 else f"{first} and {count - 1:,} more"
    who = "users of other groups" if allowed == "group" else "other users"
    sentence = f"{what} can be read by {who} of this machine, and `readable_by` is {allowed}."
    mend = "`--repair` takes the right away; or set `readable_by` in loop.yaml"
    yield Finding(sentence, mend, lambda: _hide(found, hidden))


def _open_to(folder: Path, hidden: int) -> Iterator[Path]:
    """The files below a folder that users can reach and read by a right among ``hidden``, and folders on the way."""
    if not hidden or not _mode(folder) & hidden & _ENTER:
        return
    with reading(folder):
        inside = list(folder.iterdir())
    for path in inside:
        mode = _mode(path)
        if stat.S_ISDIR(mode) and mode & hidden & _ENTER:
            yield path
            yield from _open_to(path, hidden)
        elif stat.S_ISREG(mode) and mode & hidden & _READ:
            yield path


def _mode(path: Path) -> int:
    """Its type and rights; 0 where it was deleted in the meantime."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _hide(paths: list[Path], hidden: int) -> str:
    for path in paths:
        with suppress(FileNotFoundError):
            path.chmod(stat.S_IMODE(_mode(path)) & ~hidden)
    return f"{len(paths):,} files and folders are hidden from them."
