"""How long each asset and probe of a variant took, kept beside its loop."""

import json
from pathlib import Path

from rlhf_dagster.common.files import write_atomically

SECONDS_FILE = "seconds.json"


def add_seconds(folder: Path, name: str, seconds: float) -> None:
    """Add to the seconds of an asset, over all rounds and calls."""
    spent = read_seconds(folder)
    spent[name] = round(spent.get(name, 0.0) + seconds, 2)
    write_atomically(folder / SECONDS_FILE, json.dumps(spent, indent=1).encode())


def read_seconds(folder: Path) -> dict[str, float]:
    """By asset or probe; empty before anything was made."""
    try:
        return dict(json.loads((folder / SECONDS_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
