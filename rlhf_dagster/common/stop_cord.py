"""The stop cord: anybody can stop training and promotion, and a person lets them go on.

The cord is the file ``STOP`` in the loop's folder. `rlhf stop`, a sensor that counts annotators' flags, and people who
only have a shell (`echo "the labels are wrong" > STOP`) all write it. ``stops.jsonl`` keeps who stopped what and why.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from rlhf_dagster.common.files import locked, write_once

STOP_FILE = "STOP"
HISTORY = "stops.jsonl"


@dataclass(frozen=True)
class Stop:
    by: str
    reason: str
    at: str
    """When, as ISO 8601 in UTC."""

    @property
    def sentence(self) -> str:
        return f"Stopped by {self.by}: {self.reason.rstrip('.')}. `rlhf resume` lets the loop go on."


def read_stop(root: Path) -> Stop | None:
    """Who has stopped the loop in ``root`` and why; None while it may go on."""
    path = root / STOP_FILE
    try:
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        at = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")
    except FileNotFoundError:
        return None
    try:
        return Stop(**json.loads(text))
    except (ValueError, TypeError):
        return Stop(f"the file {STOP_FILE}", " ".join(text.split()) or "no reason was given", at)


def pull(root: Path, by: str, reason: str) -> Stop:
    """Stop the loop, unless it is stopped already; returns the stop that holds."""
    stop = Stop(by, reason, datetime.now(UTC).isoformat(timespec="seconds"))
    if write_once(root / STOP_FILE, _line(asdict(stop))):
        _record(root, {"action": "stop", **asdict(stop)})
        return stop
    return read_stop(root) or stop


def reset(root: Path, by: str) -> Stop | None:
    """Let the loop go on; returns the stop that ends, None where there was none."""
    stop = read_stop(root)
    if stop is not None:
        _record(
            root, {"action": "resume", "by": by, "reason": "", "at": datetime.now(UTC).isoformat(timespec="seconds")}
        )
        (root / STOP_FILE).unlink(missing_ok=True)
    return stop


def resumes(root: Path) -> int:
    """How often the loop was let go on after a stop."""
    path = root / HISTORY
    if not path.exists():
        return 0
    return sum(json.loads(line)["action"] == "resume" for line in path.read_text(encoding="utf-8").splitlines())


def _record(root: Path, entry: dict[str, str]) -> None:
    with locked(root / f".{HISTORY}.lock"), (root / HISTORY).open("ab") as file:
        file.write(_line(entry))


def _line(entry: dict[str, str]) -> bytes:
    return (json.dumps(entry, ensure_ascii=False) + "\n").encode()
