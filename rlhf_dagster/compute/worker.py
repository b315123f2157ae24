"""A training in a process of its own, alone or as one rank of several under `torchrun`.

``python -m rlhf_dagster.compute.worker REQUEST``: the request names the stage, its spec, where its state is kept and
what ends it early. Progress goes to ``messages.jsonl`` in the request's folder, one JSON object a line, and what
became of the training to ``outcome.json``. What is printed is a log for people.
"""

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.trainings import TRAININGS, train_here
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import StopCord
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.specs import spec_from_json

MESSAGES, OUTCOME = "messages.jsonl", "outcome.json"


@dataclass(frozen=True)
class Request:
    """What a training process is asked to do."""

    stage: str
    """The name of a training."""
    spec: str
    """The spec as JSON."""
    state: str
    """Folder of the unfinished training's state."""
    every_seconds: float
    cancelled: str
    """A file that ends the training at its next step; its text is the reason."""
    store: str
    """Address of the store whose stop cord does the same."""


def main() -> None:
    folder = Path(sys.argv[1]).parent
    request = Request(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    outcome = _run(request, folder)
    if os.environ.get("RANK", "0") == "0":
        beside = folder / f".{OUTCOME}"
        beside.write_text(json.dumps(outcome), encoding="utf-8")
        beside.replace(folder / OUTCOME)


def _run(request: Request, folder: Path) -> dict[str, Any]:
    """Train; returns ``result`` and ``usage``, or why it ``stopped``, or the ``error`` as a sentence for the user."""
    from rlhf_dagster.compute.usage import measuring

    spec = spec_from_json(TRAININGS[request.stage].spec, request.spec, request.stage)
    cancelled, cord = Path(request.cancelled), StopCord(open_store(request.store))
    checkpointing = Checkpointing(
        Path(request.state), request.every_seconds, lambda: reason_in(cancelled) or cord.sentence()
    )
    with (folder / MESSAGES).open("a", encoding="utf-8", buffering=1) as messages:

        def progress(step: int, total: int, **numbers: float) -> None:
            messages.write(json.dumps({"step": step, "total": total, "numbers": numbers}) + "\n")

        try:
            with measuring(uses_cuda(spec.compute), int(os.environ.get("WORLD_SIZE", "1"))) as usage:
                result = train_here(request.stage, spec, progress, checkpointing)
        except TrainingStopped as stopped:
            return {"stopped": str(stopped)}
        except UserError as error:
            return {"error": str(error)}
    return {"result": asdict(result) | {"folder": str(result.folder)}, "usage": usage}


def reason_in(file: Path) -> str:
    """The text of a file that ends a training; empty where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or "stopped by an empty file"
    except FileNotFoundError:
        return ""


def uses_cuda(compute: Any) -> bool:
    import torch

    return compute.device != "cpu" and torch.cuda.is_available()


if __name__ == "__main__":
    main()
