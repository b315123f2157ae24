"""One of several ranks: train the stages that a file asks for, one after the other, and write what each rank got.

Asked is a JSON list of [stage, spec as JSON, folder of its state or null, reason to stop after the first step or ""].
"""

import json
import os
from pathlib import Path

from architectures import tiny

from rlhf_dagster.compute.trainings import TRAININGS, train_here
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.models.sharding.opening import sharding_models
from rlhf_dagster.training.runtime.device import training_on
from rlhf_dagster.training.runtime.distributed import is_main, rank
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
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
