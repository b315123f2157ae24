"""A training in a process of its own, alone or as one rank of several under `torchrun`.

``python -m rlhf_dagster.compute.worker REQUEST``: the request names the stage, its spec, where its state is kept and
what ends it early. Progress and what became of the training go into the request's folder
(:mod:`rlhf_dagster.compute.exchange`). What is printed is a log for people.
"""

import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.exchange import (
    MESSAGES,
    OUTCOME,
    Messages,
    PassOn,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.trainings import TRAININGS, train_here
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import StopCord
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.state_copies import StateCopies
from rlhf_dagster.training.specs import spec_from_json

CANNOT_WRITE = 73
"""Exit code of a process that could not write its outcome (``EX_CANTCREAT`` of sysexits.h)."""


def main() -> None:
    path = Path(sys.argv[1])
    with _heard(path.parent) as messages:
        outcome = _outcome(path, messages)
    if _is_first():
        try:
            write_record(path.with_name(OUTCOME), outcome)
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(CANNOT_WRITE)


@contextmanager
def _heard(folder: Path) -> Iterator[Messages]:
    """Messages to the run, to which the first rank's warnings go, beside the log."""
    messages, log = Messages(folder / MESSAGES), logging.getLogger("rlhf_dagster")
    handlers = [logging.StreamHandler(), *([PassOn(messages)] if _is_first() else [])]
    for handler in handlers:
        log.addHandler(handler)
    try:
        yield messages
    finally:
        for handler in handlers:
            log.removeHandler(handler)
        messages.close()


def _outcome(path: Path, messages: Messages) -> TrainingOutcome:
    try:
        return _run(read_record(Request, path), messages)
    except TrainingStopped as stopped:
        return TrainingOutcome(stopped=str(stopped))
    except UserError as error:
        return TrainingOutcome(error=str(error))


def _run(request: Request, messages: Messages) -> TrainingOutcome:
    from rlhf_dagster.compute.usage import measuring

    spec = spec_from_json(TRAININGS[request.stage].spec, request.spec, request.stage)
    with measuring(uses_cuda(spec.compute), int(os.environ.get("WORLD_SIZE", "1"))) as usage:
        result = train_here(request.stage, spec, messages.progress, _checkpointing(request))
    return TrainingOutcome(json.dumps(asdict(result) | {"folder": str(result.folder)}), usage=usage)


def _checkpointing(request: Request) -> Checkpointing:
    store, cancelled = open_store(request.store), Path(request.cancelled)
    cord = StopCord(store)
    return Checkpointing(
        Path(request.state),
        request.every_seconds,
        lambda: reason_in(cancelled) or cord.sentence(),
        StateCopies(store, request.copies) if request.copies else None,
    )


def reason_in(file: Path) -> str:
    """The text of a file that ends a training; empty where it is not there."""
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() or "stopped by an empty file"
    except FileNotFoundError:
        return ""


def uses_cuda(compute: Any) -> bool:
    import torch

    return compute.device != "cpu" and torch.cuda.is_available()


def _is_first() -> bool:
    return os.environ.get("RANK", "0") == "0"


if __name__ == "__main__":
    main()
