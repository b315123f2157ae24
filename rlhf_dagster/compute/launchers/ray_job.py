"""The driver of a training's Ray job, on the head node.

``python -m rlhf_dagster.compute.launchers.ray_job FOLDER JOB``. Ray Train starts the processes, starts them again where
some die, with fewer where the cluster has no room for all, and gives back what the first of them has returned. Only
then is the outcome written, and only where the folder is still this job's: a process that a partition has cut off can
commit nothing. Importing this imports no Ray.
"""

import sys
import tempfile
from pathlib import Path

from rlhf_dagster.compute.exchange import (
    OUTCOME,
    OWNER_RECORD,
    REQUEST,
    Owner,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.launchers.ray_work import ANOTHERS, GAVE_UP, NO_FOLDER, leave
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.compute.worker import CANNOT_WRITE
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.training.specs import spec_from_json

PATIENCE_SECONDS = 7200
"""How long ranks wait for one that writes a state or a model."""


def main() -> None:
    folder, job = Path(sys.argv[1]), sys.argv[2]
    if not (folder / REQUEST).is_file():
        leave(f"{folder} is not on this node.", NO_FOLDER)
    request = read_record(Request, folder / REQUEST)
    compute = spec_from_json(TRAININGS[request.stage].spec, request.spec, request.stage).compute
    outcome = _trained(compute, folder, job)
    if read_record(Owner, folder / OWNER_RECORD).job != job:
        leave(f"Another job has taken over {folder}.", ANOTHERS)
    try:
        write_record(folder / OUTCOME, outcome)
    except UserError as error:
        leave(str(error), CANNOT_WRITE)


def _trained(compute: ComputeSettings, folder: Path, job: str) -> TrainingOutcome:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    from rlhf_dagster.compute.launchers.ray_ranks import train_on_rank

    ray, on_gpus = compute.ray, "GPU" in compute.ray.per_process
    fewest = ray.fewest_processes or compute.processes
    # Ray Train keeps nothing here: states are the training's own.
    with tempfile.TemporaryDirectory() as nothing:
        trainer = TorchTrainer(
            train_on_rank,
            train_loop_config={"folder": str(folder), "job": job},
            torch_config=TorchConfig("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout_s=PATIENCE_SECONDS),
            scaling_config=ScalingConfig(
                num_workers=compute.processes if fewest == compute.processes else (fewest, compute.processes),
                use_gpu=on_gpus,
                resources_per_worker=dict(ray.per_process),
                placement_strategy=ray.placement,
            ),
            run_config=RunConfig(
                name=job, storage_path=nothing, failure_config=FailureConfig(max_failures=ray.restarts)
            ),
        )
        try:
            returned = trainer.fit().return_value
        except TrainingFailedError as error:
            leave(str(error), GAVE_UP)
    return TrainingOutcome(**returned | {"ray_job": job})


if __name__ == "__main__":
    main()
