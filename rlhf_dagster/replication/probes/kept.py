"""Taking a probe once, and reading what it measured."""

from pathlib import Path
from typing import Any

from rlhf_dagster.common.files import write_atomically
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.replication.base import Probe
from rlhf_dagster.replication.probes.known import find_probe

PROBES_FOLDER = "probes"


def take_probe(loop: LoopFolder, probe: Probe) -> bool:
    """Measure and write down, unless that was done; whether it was measured now."""
    path = _path(loop.root, probe)
    if path.exists():
        return False
    measured = find_probe(probe.name)(loop, **probe.options)
    write_atomically(path, seal({"probe": probe.name, "options": dict(probe.options), "measured": measured}))
    return True


def probe_is_taken(folder: Path, probe: Probe) -> bool:
    return _path(folder, probe).exists()


def read_probe(folder: Path, probe: Probe) -> Any:
    """What a probe of the loop in ``folder`` has measured; raises UserError before it was taken."""
    path = _path(folder, probe)
    if not path.exists():
        raise UserError(f"{folder}: the probe {probe.name} is not taken; run `rlhf replicate` again.")
    return unseal(path.read_bytes(), str(path))["measured"]


def _path(folder: Path, probe: Probe) -> Path:
    options = f"-{content_hash(dict(probe.options))}" if probe.options else ""
    return folder / PROBES_FOLDER / f"{probe.name}{options}.json"
