"""`compute.launch: in_process`: a training in the process of the run."""

from rlhf_dagster.compute.launchers.base import Launcher
from rlhf_dagster.compute.launchers.on_this_machine import prepare_here
from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.compute.usage import measuring
from rlhf_dagster.compute.work import Trained, Work
from rlhf_dagster.compute.worker import uses_cuda
from rlhf_dagster.lineage.stop_cord import StopCord
from rlhf_dagster.training.runtime.resuming import Checkpointing
from rlhf_dagster.training.specs import OnStep, Spec


def _train(stage: str, spec: Spec, work: Work, progress: OnStep, lock: int) -> Trained:
    stop = StopCord(work.store).sentence
    checkpointing = Checkpointing(work.state, spec.compute.checkpoint_seconds, stop, work.copies)
    with measuring(uses_cuda(spec.compute)) as usage:
        result = train_here(stage, spec, progress, checkpointing)
    return Trained(result, usage)


IN_PROCESS = Launcher(prepare_here, _train)
