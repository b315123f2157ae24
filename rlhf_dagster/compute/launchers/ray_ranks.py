"""A process (rank) of a training's Ray job: Ray Train has told it its rank, and joined it with the others."""

import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rlhf_dagster.compute.exchange import (
    FOLLOWED,
    OWNER_RECORD,
    REQUEST,
    Messages,
    Owner,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.free_memory import Free, free_memory
from rlhf_dagster.compute.launchers.ray_work import SignsOfRun
from rlhf_dagster.compute.memory import require_memory, settled
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.compute.worker import outcome_of, reason_in, telling, trained_here
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import StopCord
from rlhf_dagster.storage.known import open_store
from rlhf_dagster.training.functions import variables_of
from rlhf_dagster.training.runtime.device import use_device
from rlhf_dagster.training.runtime.distributed import broadcast_text, first_text, is_main, world
from rlhf_dagster.training.runtime.resuming import Checkpointing, CutOff
from rlhf_dagster.training.runtime.state_copies import StateCopies
from rlhf_dagster.training.specs import Spec, spec_from_json


def train_on_rank(asked: dict[str, str]) -> dict[str, Any]:
    """Train as one rank; gives the outcome, of which Ray Train takes the first rank's."""
    folder, job = Path(asked["folder"]), asked["job"]
    if unseen := first_text(_unseen(folder)):
        return asdict(TrainingOutcome(error=unseen))
    attempt = broadcast_text(uuid.uuid4().hex if is_main() else "")
    if taken := broadcast_text(_claim(folder, job, attempt) if is_main() else ""):
        return asdict(TrainingOutcome(error=taken))
    with telling(folder) as messages:
        return asdict(outcome_of(lambda: _asked(folder, job, attempt, messages)))


def _asked(folder: Path, job: str, attempt: str, messages: Messages) -> TrainingOutcome:
    request = read_record(Request, folder / REQUEST)
    spec = spec_from_json(TRAININGS[request.stage].spec, request.spec, request.stage)
    _on_all_ranks(lambda: _require_inputs(spec))
    # What a rank that is cut off still writes is in no other's way.
    spec = _fitting(replace(spec, output=folder / f"output-{attempt}"))
    return trained_here(request.stage, spec, messages, _checkpointing(request, spec.compute, folder, job, attempt))


def _unseen(folder: Path) -> str:
    if (folder / REQUEST).is_file():
        return ""
    return (
        f"The node {socket.gethostname()} of Ray does not see {folder}, where the training works; put the loop on a "
        "disk that all nodes mount at the same place."
    )


def _require_inputs(spec: Spec) -> None:
    """Raise UserError where this node lacks a file or a variable that the training needs."""
    inputs = [value for name, value in vars(spec).items() if isinstance(value, Path) and name != "output"]
    for path in inputs:
        if not path.exists():
            raise UserError(f"The node {socket.gethostname()} of Ray does not see {path}, which the training reads.")
    for name in [*variables_of(spec), *spec.compute.pass_variables]:
        if not os.environ.get(name):
            raise UserError(
                f"{name} is not in the environment of Ray's node {socket.gethostname()}; secrets are no part of a job, "
                "so give it to the nodes."
            )


def _claim(folder: Path, job: str, attempt: str) -> str:
    """Make the folder this attempt's, unless it is another job's: then the sentence that says so."""
    owner = read_record(Owner, folder / OWNER_RECORD)
    if owner.job != job:
        return f"The job {owner.job} has taken over this training."
    write_record(folder / OWNER_RECORD, replace(owner, attempt=attempt))
    return ""


def _fitting(spec: Spec) -> Spec:
    """``spec`` for as many ranks as there are, with what `auto` means on their nodes.

    Raises UserError on all ranks where the training does not fit the node of one.
    """
    spec = replace(spec, compute=_for_ranks(spec.compute))
    _on_all_ranks(lambda: use_device(spec.compute))
    free = _free_here(spec.compute)
    sharding = broadcast_text(settled(spec, free).compute.sharding if is_main() else "") or spec.compute.sharding
    spec = replace(spec, compute=spec.compute.changed(sharding=sharding))
    _on_all_ranks(lambda: require_memory(spec, free, _ranks_here()))
    return spec


def _for_ranks(compute: ComputeSettings) -> ComputeSettings:
    """With the number of ranks that Ray has found room for; one rank has nothing to divide."""
    return compute.changed(processes=world(), sharding=compute.sharding if world() > 1 else "none")


def _free_here(compute: ComputeSettings) -> Free:
    """What is free on this node, in as many shares as there are ranks: a node has only some of them."""
    free = free_memory(compute.changed(launch="in_process", processes=1, sharding="none", ray={}))
    if free.bytes is None or not free.shared:
        return free
    return replace(free, bytes=free.bytes * world() // _ranks_here(), where=f"nodes like {socket.gethostname()}")


def _ranks_here() -> int:
    """How many of the ranks are on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _on_all_ranks(act: Callable[[], object]) -> None:
    """Call ``act``; what it refuses on one rank is refused on all."""
    try:
        act()
        own = ""
    except UserError as error:
        own = str(error)
    if said := first_text(own):
        raise UserError(said)


def _checkpointing(request: Request, compute: ComputeSettings, folder: Path, job: str, attempt: str) -> Checkpointing:
    store, cancelled = open_store(request.store), Path(request.cancelled)
    cord, signs = StopCord(store), SignsOfRun(folder / FOLLOWED, compute.ray.orphan_seconds)

    def require_own() -> None:
        owner = read_record(Owner, folder / OWNER_RECORD)
        if (owner.job, owner.attempt) != (job, attempt):
            raise CutOff(f"The job {owner.job} has taken over this training; this one keeps nothing more.")

    return Checkpointing(
        Path(request.state),
        request.every_seconds,
        lambda: reason_in(cancelled) or cord.sentence() or signs.ended(),
        StateCopies(store, request.copies) if request.copies else None,
        require_own,
    )
