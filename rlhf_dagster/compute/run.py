"""Run a training where its compute settings say: in this process, in one of its own, or on Ray."""

from rlhf_dagster.compute.launchers.known import LAUNCHERS
from rlhf_dagster.compute.tracking import TrainingLog, tracking
from rlhf_dagster.compute.work import Trained, Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.specs import OnStep, Spec


def run_training(stage: str, spec: Spec, work: Work, progress: OnStep) -> Trained:
    """Train ``spec`` (whose output is ``work.output``) where its compute settings say.

    Raises:
        TrainingStopped: the stop cord was pulled; the state is kept, and the next try goes on from it.
        TrainingDied: the process was killed; the state is kept.
        TrainingFailed: the process ended by an unexpected error; the end of its log is in the message.
        UserError: what the user gave cannot be trained.
    """
    launcher = LAUNCHERS[spec.compute.launch]()
    with work.locked() as lock:
        spec = launcher.prepare(spec, work)
        training_log = _log_of(work, spec.compute)
        with tracking(training_log, progress) as logged:
            trained = launcher.train(stage, spec, work, logged, lock)
            if training_log is not None:
                training_log.finish(trained.result.metrics)
            return trained


def _log_of(work: Work, compute: ComputeSettings) -> TrainingLog | None:
    return None if work.logs is None else TrainingLog(work.logs, work.project, work.folder.name, compute.trackers)
