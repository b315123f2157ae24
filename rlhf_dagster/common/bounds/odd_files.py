"""What is no file: reading a pipe waits for ever, reading a device may have no end, and a link may lead nowhere."""

import stat
from pathlib import Path

from rlhf_dagster.errors import UserError

_ODD = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISCHR, "a device"), (stat.S_ISBLK, "a device"), (stat.S_ISSOCK, "a socket"))


def odd_kind(mode: int) -> str:
    """What a path of this mode is, where it is neither a file nor a folder; else empty."""
    return next((what for is_odd, what in _ODD if is_odd(mode)), "")


def leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to what is not there: its name is taken, and nothing can be read."""
    return path.is_symlink() and not path.exists()


def require_no_odd_file(path: Path) -> None:
    """Raise UserError where ``path`` is there and is neither a file nor a folder."""
    try:
        what = "a link that leads nowhere" if leads_nowhere(path) else odd_kind(path.stat().st_mode)
    except (OSError, ValueError):
        return
    if what:
        raise UserError(f"{path}: {what}, not a file; put the file in its place, or take it away.")
