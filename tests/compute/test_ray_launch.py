"""What a run does about its Ray job: takes over, ends, waits, and says what became of it. No Ray is asked."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ray_cluster import FakeRay

from rlhf_dagster.compute.exchange import (
    OUTCOME,
    OWNER_RECORD,
    REQUEST,
    Messages,
    Owner,
    Request,
    TrainingOutcome,
    read_record,
    write_record,
)
from rlhf_dagster.compute.launchers import on_ray, ray_jobs, ray_ranks, ray_work
from rlhf_dagster.compute.launchers.ray_jobs import Unreachable
from rlhf_dagster.compute.launchers.ray_work import GAVE_UP, NO_FOLDER
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.work import CANCELLED, TrainingDied, TrainingFailed, Work
from rlhf_dagster.config.training import ComputeSettings, TinyModelSettings
from rlhf_dagster.errors import UserError
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.schemas import PRETRAINING_TEXT, table
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.resuming import Checkpointing, CutOff
from rlhf_dagster.training.runtime.state_folders import states_in
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.specs import Spec, TinyModelSpec, silent, spec_to_json

COMPUTE = ComputeSettings(threads=1, device="cpu", launch="ray", grace_seconds=0.3)
TINY = TinyModelSettings(layers=1, width=8, heads=1, context=16, steps=3, batch_size=4)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> FakeRay:
    fake = FakeRay()
    monkeypatch.setattr(on_ray, "require_ray", lambda: None)
    monkeypatch.setattr(ray_work.RayJobs, "at", lambda address: fake)
    for name in ("_POLL", "_LOOK", "_BEAT", "_LOG"):
        monkeypatch.setattr(ray_work, name, 0.0)
    return fake


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work" / "base", LocalStore(tmp_path))


@pytest.fixture
def spec(work: Work, tmp_path: Path) -> TinyModelSpec:
    rows = [
        {"text_id": str(i), "text": f"red dog {i} .", "source": "t", "split": "validation" if i % 8 == 7 else "train"}
        for i in range(64)
    ]
    (tmp_path / "text.parquet").write_bytes(to_parquet(table(rows, PRETRAINING_TEXT)))
    return TinyModelSpec(tmp_path / "text.parquet", work.output, TINY, COMPUTE)


def on_rank(work: Work) -> Callable[[str], str]:
    """A job of one rank, which is this process, and which is done at the first look."""

    def does(job: str) -> str:
        if not (work.folder / OUTCOME).exists():
            outcome = ray_ranks.train_on_rank({"folder": str(work.folder), "job": job})
            write_record(work.folder / OUTCOME, TrainingOutcome(**outcome | {"ray_job": job}))
        return "SUCCEEDED"

    return does


def test_a_training_is_a_job_whose_output_progress_and_usage_come_back(
    ray: FakeRay, work: Work, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", "hunter2")
    ray.does = on_rank(work)
    steps: list[int] = []
    trained = run_training("tiny_model", spec, work, lambda step, *_, **__: steps.append(step))
    assert trained.result.folder == work.output
    assert (work.output / "model.safetensors").is_file()
    assert steps == [1, 2, 3]
    assert trained.usage["seconds"] > 0
    assert [trained.ray_job] == ray.submitted
    assert (work.folder / "training.log").read_text() == f"last words of {ray.submitted[0]}"
    assert ray.environment == {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "RAY_DEDUP_LOGS": "0"}
    assert "hunter2" not in ray.commands[0]


def test_the_job_of_a_run_that_was_killed_is_followed_further(ray: FakeRay, work: Work, spec: Spec) -> None:
    class KilledError(BaseException):
        pass

    def does(job: str) -> str:
        raise KilledError

    ray.does = does
    # A run that is killed writes nothing more.
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(ray_work, "_end", lambda *_: None)
        run_training("tiny_model", spec, work, silent)
    ray.does = on_rank(work)
    run_training("tiny_model", spec, work, silent)
    assert len(ray.submitted) == 1


@pytest.mark.parametrize("change", [{"checkpoint_seconds": 7.0}, {"processes": 2}])
def test_a_job_of_other_settings_is_ended_and_cannot_keep_anything(
    change: dict[str, float], ray: FakeRay, work: Work, spec: Spec
) -> None:
    work.folder.mkdir(parents=True)
    write_record(work.folder / OWNER_RECORD, Owner("rlhf-old", on_ray.identity_of(spec)))
    goes_on = on_rank(work)
    ray.does = lambda job: "RUNNING" if job == "rlhf-old" else goes_on(job)
    run_training("tiny_model", replace(spec, compute=COMPUTE.changed(**change)), work, silent)
    assert ray.stopped == ["rlhf-old"]
    assert read_record(Owner, work.folder / OWNER_RECORD).job == ray.submitted[0]


def test_a_cancelled_job_is_asked_first_and_then_stopped(ray: FakeRay, work: Work, spec: Spec) -> None:
    asked: list[bool] = []

    def does(job: str) -> str:
        if not asked:
            asked.append((work.folder / CANCELLED).exists())
            raise KeyboardInterrupt
        asked.append((work.folder / CANCELLED).exists())
        return "RUNNING"

    ray.does = does
    with pytest.raises(KeyboardInterrupt):
        run_training("tiny_model", spec, work, silent)
    assert (asked, ray.stopped) == ([False, True], ray.submitted)
    # Its job may still be ending when the next try comes, which does not follow it into its end.
    ray.stopped.clear()
    before, goes_on = ray.submitted[0], on_rank(work)
    ray.does = lambda job: "RUNNING" if job == before else goes_on(job)
    run_training("tiny_model", spec, work, silent)
    assert (ray.stopped, len(ray.submitted)) == ([before], 2)


def test_a_cluster_that_is_away_is_waited_for_and_its_job_left_at_work(
    ray: FakeRay, work: Work, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on, away = on_rank(work), iter([True, True, False])

    def does(job: str) -> str:
        if next(away, False):
            raise Unreachable("connection refused")
        return goes_on(job)

    ray.does = does
    run_training("tiny_model", spec, work, silent)
    work.clear()

    def never(job: str) -> str:
        raise Unreachable("connection refused")

    ray.does = never
    monkeypatch.setattr(ray_work, "CLUSTER_PATIENCE", -1.0)
    with pytest.raises(TrainingDied, match=r"given no answer .*connection refused.*the next try follows it further"):
        run_training("tiny_model", spec, work, silent)
    assert not ray.stopped and not (work.folder / CANCELLED).exists()


@pytest.mark.parametrize(
    ("code", "status", "error", "sentence"),
    [
        (NO_FOLDER, "FAILED", UserError, "head node of Ray at http://ray does not see"),
        (GAVE_UP, "FAILED", TrainingFailed, r"ended \(exit code 70\).\nlast words"),
        (137, "FAILED", TrainingDied, r"ended \(exit code 137\)"),
        (None, "NO_SUCH_JOB", TrainingDied, r"ended \(Ray does not know it any more\)"),
        (None, "STOPPED", TrainingDied, r"ended \(stopped\)"),
    ],
)
def test_a_job_without_an_outcome(
    code: int | None, status: str, error: type[Exception], sentence: str, ray: FakeRay, work: Work, spec: Spec
) -> None:
    ray.code, ray.does = code, lambda job: status
    with pytest.raises(error, match=sentence):
        run_training("tiny_model", spec, work, silent)


@dataclass(frozen=True)
class JobStatus:
    value: str


class Client:
    """Ray's client of a head that takes a job at its third try, or whose answer to the first is lost."""

    def __init__(self, lost: bool) -> None:
        self.tries, self.lost = 0, lost

    def submit_job(self, **_: object) -> None:
        self.tries += 1
        if self.lost:
            raise ConnectionError("Failed to connect to Ray.")
        if self.tries < 3:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job.")

    def get_job_status(self, job: str) -> JobStatus:
        if self.lost:
            return JobStatus("PENDING")
        raise RuntimeError("Request failed with status code 404: Job does not exist.")


@pytest.mark.parametrize(("lost", "tries"), [(False, 3), (True, 1)])
def test_a_job_is_offered_until_it_is_taken_and_never_twice(
    lost: bool, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_jobs, "_AGAIN", 0.0)
    client = Client(lost)
    ray_jobs.RayJobs("http://ray", client).submit("rlhf-1", "python", {}, {})
    assert client.tries == tries


def test_a_cluster_that_takes_no_job_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_jobs, "SUBMIT_PATIENCE", -1.0)
    with pytest.raises(UserError, match=r"Ray at http://ray took no job .*No available agent"):
        ray_jobs.RayJobs("http://ray", Client(lost=False)).submit("rlhf-1", "python", {}, {})


def asked(work: Work, spec: Spec, job: str = "rlhf-1", **request: object) -> dict[str, str]:
    """A work folder as a run leaves it to a job's ranks."""
    work.folder.mkdir(parents=True, exist_ok=True)
    told = {"state": str(work.state), "every_seconds": 0.0, "cancelled": str(work.folder / CANCELLED)}
    write_record(work.folder / REQUEST, Request("tiny_model", spec_to_json(spec), store=work.store.address, **told))
    write_record(work.folder / OWNER_RECORD, Owner(job, "identity"))
    return {"folder": str(work.folder), "job": "rlhf-1"}


def outcome_of_rank(told: dict[str, str]) -> TrainingOutcome:
    return TrainingOutcome(**ray_ranks.train_on_rank(told))


def test_a_rank_of_an_older_job_does_not_begin(work: Work, spec: Spec) -> None:
    assert outcome_of_rank(asked(work, spec, "rlhf-2")).error == "The job rlhf-2 has taken over this training."
    assert not states_in(work.state)


def test_a_rank_that_is_cut_off_keeps_no_further_state(work: Work, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken_over(self: Messages, step: int, total: int, **numbers: float) -> None:
        if step == 2:
            write_record(work.folder / OWNER_RECORD, Owner("rlhf-2", "identity"))

    monkeypatch.setattr(Messages, "progress", taken_over)
    with pytest.raises(CutOff, match="rlhf-2 has taken over"):
        outcome_of_rank(asked(work, spec))
    assert [state.name for state in states_in(work.state)] == ["state-000000001"]
    assert not list(work.state.glob(".state-*")) and not (work.folder / OUTCOME).exists()


def test_a_state_that_is_not_its_own_gets_no_name(tmp_path: Path) -> None:
    cut = False

    def require_own() -> None:
        if cut:
            raise CutOff("taken over")

    keeper = StateKeeper(Checkpointing(tmp_path, 0.0, require_own=require_own), "a")
    keeper.after_step(1, lambda: {"step": 1})
    cut = True
    with pytest.raises(CutOff):
        keeper.after_step(2, lambda: {"step": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["state-000000001"]


def test_what_a_node_lacks_is_said(work: Work, spec: TinyModelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    told = asked(work, replace(spec, compute=COMPUTE.changed(pass_variables=["OUR_KEY"])))
    assert "OUR_KEY is not in the environment of Ray's node" in outcome_of_rank(told).error
    spec.pretraining_text.unlink()
    assert f"does not see {spec.pretraining_text}" in outcome_of_rank(asked(work, spec)).error
    (work.folder / REQUEST).unlink()
    assert f"does not see {work.folder}" in outcome_of_rank(told).error


def test_a_training_that_nobody_follows_writes_its_state_and_ends(
    work: Work, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = replace(spec, compute=COMPUTE.changed(ray={"orphan_seconds": 1e-9}))
    assert outcome_of_rank(asked(work, alone)).stopped.startswith("no run has followed this training for")
    assert [state.name for state in states_in(work.state)] == ["state-000000001"]
    # A run that lives gives another sign before each look.
    signs = iter(range(100))

    def alive(self: Messages, *_: int, **__: float) -> None:
        (work.folder / "followed").write_text(str(next(signs)))

    monkeypatch.setattr(Messages, "progress", alive)
    assert outcome_of_rank(asked(work, alone)).result


def test_too_little_memory_is_said_by_the_node(work: Work, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_dagster.compute.free_memory.free_on_machine", lambda: 1000)
    error = outcome_of_rank(asked(work, spec)).error
    assert "Pretraining needs about" in error and "0.0 GB are free on nodes like" in error


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"processes": 2}, "needs `compute.launch: process` or `ray`"),
        (
            {"launch": "ray", "ray": {"fewest_processes": 2}},
            "compute.ray.fewest_processes is 2 and compute.processes 1",
        ),
        ({"launch": "ray", "device": "cuda"}, "needs a GPU in compute.ray.per_process"),
        ({"ray": {"per_process": {"GPU": 0.5}}}, "a process has whole GPUs"),
        ({"ray": {"per_process": {"CPU": 0}}}, "more than nothing of each"),
        ({"ray": {"environment": {"WANDB_API_KEY": "x"}}}, "WANDB_API_KEY looks like a secret"),
        ({"ray": {"environment": {"PLACE": "postgres://me:secret@host"}}}, "PLACE looks like a secret"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        ComputeSettings.parse(settings, "loop.yaml")


def test_without_ray_it_is_said_how_to_install_it(work: Work, spec: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rlhf_dagster.compute.launchers.ray_jobs.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`compute.launch: ray` needs Ray: .*rlhf-dagster\[ray\]"):
        run_training("tiny_model", spec, work, silent)


def test_nothing_of_ray_is_imported_where_it_is_not_asked_for(spec: TinyModelSpec, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rlhf_dagster.compute.run import run_training\n"
        "import rlhf_dagster.build, rlhf_dagster.cli.app\n"
        "from rlhf_dagster.compute.work import Work; from rlhf_dagster.storage.local import LocalStore\n"
        "from rlhf_dagster.training.specs import TinyModelSpec, silent, spec_from_json\n"
        "root = Path(sys.argv[1]); spec = spec_from_json(TinyModelSpec, (root / 'spec.json').read_text(), 'spec')\n"
        "run_training('tiny_model', spec, Work(root / 'work', LocalStore(root)), silent)\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'ray'))\n"
    )
    here = replace(spec, output=tmp_path / "work" / "output", compute=COMPUTE.changed(launch="in_process"))
    (tmp_path / "spec.json").write_text(spec_to_json(here))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
