"""A training in a process of its own, alone or as one rank of several under `torchrun`.

``python -m rlhf_dagster.compute.worker REQUEST``: the request names the stage, its spec, where its state is kept and
what ends it early. Progress and what became of the training go into the request's folder
(:mod:`rlhf_dagster.compute.exchange`). What is printed is a log for people.
"""

import faulthandler
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
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
from rlhf_dagster.training.specs import Spec, spec_from_json

CANNOT_WRITE = 73
"""Exit code of a process that could not write its outcome (``EX_CANTCREAT`` of sysexits.h)."""


def main() -> None:
    path = Path(sys.argv[1])
    with telling(path.parent) as messages:
        outcome = outcome_of(lambda: _asked(path, messages))
    if _is_first():
        try:
            write_record(path.with_name(OUTCOME), outcome)
        except UserError as error:
            sys.stderr.write(f"{error}\n")
            sys.exit(CANNOT_WRITE)


@contextmanager
def telling(folder: Path) -> Iterator[Messages]:
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


def outcome_of(train: Callable[[], TrainingOutcome]) -> TrainingOutcome:
    """What ``train`` gives, or the outcome of one that was refused or stopped."""
    try:
        return train()
    except TrainingStopped as stopped:
        return TrainingOutcome(stopped=str(stopped))
    except UserError as error:
        return TrainingOutcome(error=str(error))


def _asked(path: Path, messages: Messages) -> TrainingOutcome:
    from rlhf_dagster.training.runtime.distributed import leave_group

    request = read_record(Request, path)
    spec = spec_from_json(TRAININGS[request.stage].spec, request.spec, request.stage)
    try:
        return trained_here(request.stage, spec, messages, _checkpointing(request))
    finally:
        leave_group()


def trained_here(stage: str, spec: Spec, messages: Messages, checkpointing: Checkpointing) -> TrainingOutcome:
    """Train in this process, and measure what it takes."""
    from rlhf_dagster.compute.usage import measuring

    with measuring(uses_cuda(spec.compute), int(os.environ.get("WORLD_SIZE", "1"))) as usage:
        result = train_here(stage, spec, messages.progress, checkpointing)
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
    faulthandler.enable()  # the log says where a signal such as SIGSEGV met it
    main()
