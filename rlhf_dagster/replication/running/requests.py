"""What a worker process is asked, and what it answers: a line of JSON each."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from rlhf_dagster.replication.base import Probe
from rlhf_dagster.replication.variants.steps import Step


@dataclass(frozen=True)
class RunRequest:
    """One variant with one seed, as far as a worker must know it."""

    folder: Path
    """Of its loop; made where it is not there."""
    settings: str
    """The text of its `loop.yaml`."""
    steps: Sequence[Step]
    begin_from: Path | None = None
    """What another variant has kept of its beginning (:mod:`rlhf_dagster.replication.variants.beginnings`)."""
    anew: Sequence[str] = ()
    """What of that is left out, and made again."""
    keep: Mapping[str, Path] = field(default_factory=dict)
    """By asset after which others go on, where to keep the loop as it is then."""
    probes: Sequence[Probe] = ()


@dataclass(frozen=True)
class WorkerMessage:
    """What a worker says while it runs a variant; the last it says of one is ``done`` or ``failed``."""

    kind: Literal["started", "progress", "made", "kept", "done", "failed"]
    what: str = ""
    """The asset or the probe."""
    round_key: str = ""
    text: str = ""
    """A few numbers of what was made; why it failed."""
    seconds: float = 0.0
    step: int = 0
    total: int = 0


def request_line(request: RunRequest) -> str:
    return json.dumps(asdict(request), default=str) + "\n"


def read_request(line: str) -> RunRequest:
    values: dict[str, Any] = json.loads(line)
    return RunRequest(
        Path(values["folder"]),
        values["settings"],
        [Step(**step) for step in values["steps"]],
        values["begin_from"] and Path(values["begin_from"]),
        values["anew"],
        {asset: Path(place) for asset, place in values["keep"].items()},
        [Probe(**probe) for probe in values["probes"]],
    )


def message_line(said: WorkerMessage) -> str:
    return json.dumps(asdict(said)) + "\n"


def read_message(line: str) -> WorkerMessage:
    return WorkerMessage(**json.loads(line))
