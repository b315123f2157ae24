"""`compute.launch: ray`: a training as a job of a Ray cluster, whose processes are those of Ray Train."""

import shutil
from dataclasses import replace
from pathlib import Path

from rlhf_dagster.common.files import make_folder, writing
from rlhf_dagster.compute.exchange import REQUEST, Request, write_record
from rlhf_dagster.compute.launchers.base import Launcher
from rlhf_dagster.compute.launchers.ray_jobs import require_ray
from rlhf_dagster.compute.launchers.ray_work import RayTask, done_on_ray
from rlhf_dagster.compute.work import CANCELLED, Trained, Work, trained_by
from rlhf_dagster.records.ids import content_hash
from rlhf_dagster.training.runtime.resuming import fingerprint
from rlhf_dagster.training.specs import OnStep, Spec, spec_to_json


def _prepare(spec: Spec, work: Work) -> Spec:
    """The folder is left as it is: a job may be at work in it. Memory is the nodes', and asked there."""
    require_ray()
    return spec


def _train(stage: str, spec: Spec, work: Work, progress: OnStep, lock: int) -> Trained:
    def write_request() -> None:
        request = Request(
            stage,
            spec_to_json(_with_own_inputs(spec, work.folder / "inputs")),
            str(work.state),
            spec.compute.checkpoint_seconds,
            str(work.folder / CANCELLED),
            work.store.address,
            work.copies.folder if work.copies else "",
        )
        write_record(work.folder / REQUEST, request)

    module = "rlhf_dagster.compute.launchers.ray_job"
    task = RayTask(stage, module, identity_of(spec), spec.compute, write_request)
    trained = trained_by(done_on_ray(task, work, progress))
    shutil.rmtree(work.output, ignore_errors=True)
    trained.result.folder.rename(work.output)
    return replace(trained, result=replace(trained.result, folder=work.output))


def identity_of(spec: Spec) -> str:
    """Of what a job trains, and with which compute settings: a next try follows one that has the same."""
    return content_hash("ray", fingerprint(spec), spec.compute.model_dump_json())


def _with_own_inputs(spec: Spec, folder: Path) -> Spec:
    """``spec`` with copies of its tables, which the job reads again when it is restarted, with this run or without."""
    files = {name: value for name, value in vars(spec).items() if isinstance(value, Path) and value.is_file()}
    return replace(spec, **{name: _copied(path, folder / name) for name, path in files.items()})


def _copied(file: Path, folder: Path) -> Path:
    with writing(folder):
        make_folder(folder)
        shutil.copyfile(file, folder / file.name)
    return folder / file.name


ON_RAY = Launcher(_prepare, _train)
