"""One of several ranks: train the stages that a file asks for, one after the other, and write what each rank got.

Asked is a JSON list of [stage, spec as JSON, folder of its state or null, reason to stop after the first step or ""].
"""

import errno
import json
import os
from pathlib import Path

import torch
from architectures import tiny
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from rlhf_dagster.compute.trainings import TRAININGS, train_here
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.sharding.opening import sharding_models
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.distributed import is_main, leave_group, rank
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.sharding.tensors import empty_sharded, own_part, sharded_like
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.specs import spec_from_json


def main(asked: Path, number: int, world: int, port: int) -> None:
    """Rank ``number`` of ``world``, with the environment that `torchrun` would give it."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    outcomes = []
    for stage, text, state, reason in json.loads(asked.read_text()):
        # Only what the main rank is told may count.
        checkpointing = Checkpointing(state and Path(state), 3600, lambda: reason if is_main() else "")  # noqa: B023
        steps: list[int] = []
        try:
            result = train_here(
                stage,
                spec_from_json(TRAININGS[stage].spec, text, stage),
                lambda step, *_, **__: steps.append(step),  # noqa: B023
                checkpointing,
            )
            outcomes.append({"metrics": result.metrics, "curves": result.curves, "steps": steps})
        except TrainingStopped as stopped:
            outcomes.append({"stopped": str(stopped), "steps": steps})
        except UserError as error:
            outcomes.append({"error": str(error)})
    asked.with_name(f"rank-{rank()}.json").write_text(json.dumps(outcomes))
    leave_group()


def shard(folder: Path, names: list[str], number: int, world: int, port: int) -> None:
    """Cut tiny models of these architectures, and write what is said of each; `broken` computes something else after it
    was cut, on the second rank alone."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    compute = ComputeSettings(threads=1, device="cpu", launch="process", processes=world, sharding="full")
    said = []
    with training_on(compute):
        for name in names:
            model = tiny("gpt2" if name == "broken" else name)
            try:
                with sharding_models(compute, wanted=True) as sharding:
                    sharding.shard(model)
                    if name == "broken" and number == 1:
                        model.transformer.h[1].register_forward_hook(lambda layer, inputs, output: -output)
                said.append("cut")
            except UserError as error:
                said.append(str(error))
    (folder / f"rank-{number}.txt").write_text("\n".join(said))


def keep(folder: Path, number: int, world: int, port: int) -> None:
    """Write three states of a tensor in parts: a good one, one for which the second rank has no room, and one for which
    nobody has a place. Write the step of the last whole one, and what is read from it."""
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    cpu, whole = torch.device("cpu"), torch.arange(15.0).view(5, 3)
    with training_on(ComputeSettings(threads=1, device="cpu")):
        empty = empty_sharded((5, 3), torch.float32, cpu)
        rows, write = sharded_like(whole, empty), HuggingFaceStorageWriter.write_data
        keeper = StateKeeper(Checkpointing(folder / "state", 0.0), "a", sharded=True)
        keeper.after_step(1, lambda: {"rows": rows, "rest": [2, "text", (None, torch.tensor(3))]})
        if number == 1:
            HuggingFaceStorageWriter.write_data = _no_room
        keeper.after_step(2, lambda: {"rows": rows})
        HuggingFaceStorageWriter.write_data = write
        StateKeeper(Checkpointing(folder / "file" / "state", 0.0), "a", sharded=True).after_step(
            1, lambda: {"rows": rows}
        )
        again = StateKeeper(Checkpointing(folder / "state", 0.0), "a", sharded=True)
        newest, state = again.newest(), again.load(cpu)
    own = own_part(state["rows"]).tolist()
    (folder / f"rank-{number}.json").write_text(json.dumps([newest.name, own, repr(state["rest"])]))


def _no_room(writer: HuggingFaceStorageWriter, *arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
