"""Trainings on the hosts of a Ray cluster that are killed, cut off or frozen: they go on, or end, as they should."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from forks import forked
from ray_cluster import let_in
from ray_hosts import NO_HEAD, Hosts, hosts, wait_until
from test_on_ray import digest_on_two_ranks, job_of, jobs_of, reached, run_until_killed
from toy_language import COMPUTE, VARIABLE, Tables, sft_spec

from rlhf_dagster.compute.exchange import OWNER_RECORD, Owner, read_record
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.shards.on_ray import rows_on_ray
from rlhf_dagster.compute.shards.task import ShardTask
from rlhf_dagster.compute.work import TrainingDied, Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.state_folders import states_in
from rlhf_dagster.training.sampling.sample import sample
from rlhf_dagster.training.sft.train import train_sft
from rlhf_dagster.training.specs import SftSpec, spec_to_json

pytestmark = [pytest.mark.integration, pytest.mark.long]
PARTITION = 60.0
"""Seconds."""
Happenings = dict[int, Callable[[], None]]
"""What happens, by the step."""


@pytest.fixture(scope="module")
def made() -> Iterator[Hosts]:
    with hosts(3) as found:
        yield found


@pytest.fixture
def two(made: Hosts, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Ray runs on the first two hosts alone, whatever a test before has left."""
    for name, value in made.cluster.environment.items():
        monkeypatch.setenv(name, value)
    let_in(made.cluster, monkeypatch)
    made.end(3)
    for number in {1, 2} - made.nodes.keys():
        made.start(number)
    return made


@pytest.fixture(scope="module")
def expected(base: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The digest of the same training on two ranks of this host."""
    folder = tmp_path_factory.mktemp("plain")
    return digest_on_two_ranks(longer(sft_spec(base, tables, folder / "output")), folder)


def on_ray(made: Hosts, processes: int, **settings: object) -> ComputeSettings:
    environment = {"GLOO_SOCKET_IFNAME": "eth0"}
    ray = {"address": made.cluster.address, "placement": "SPREAD", "environment": environment, **settings}
    return ComputeSettings(
        threads=1, device="cpu", launch="ray", processes=processes, checkpoint_seconds=0, grace_seconds=20, ray=ray
    )


@pytest.fixture
def plain(base: Path, tables: Tables, tmp_path: Path) -> SftSpec:
    """40 steps."""
    return longer(sft_spec(base, tables, tmp_path / "work" / "sft" / "output"))


def longer(spec: SftSpec) -> SftSpec:
    return replace(spec, settings=spec.settings.changed(epochs=8))


@pytest.fixture
def spec(plain: SftSpec, two: Hosts) -> SftSpec:
    return replace(plain, compute=on_ray(two, 2))


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work" / "sft", LocalStore(tmp_path))


@dataclass
class Watched:
    """The steps that a run has heard of; ``happens`` once each, at the first step from its own on."""

    happens: Happenings
    steps: list[int] = field(default_factory=list)

    def __call__(self, step: int, *_: int, **__: float) -> None:
        self.steps.append(step)
        for due in [due for due in self.happens if step >= due]:
            self.happens.pop(due)()


def were_on(made: Hosts, work: Work, *numbers: int) -> None:
    """Assert that ranks trained on these hosts."""
    log = (work.folder / "training.log").read_text()
    assert all(f"(ip={made.network}.{number}," in log for number in numbers), log[-3000:]


def test_a_host_that_is_killed_twice_costs_no_byte(spec: SftSpec, work: Work, two: Hosts, expected: str) -> None:
    def lose_host() -> None:
        two.lose(2)
        two.start(2)

    watched = Watched({10: lose_host, 25: lose_host})
    done = run_training("sft", spec, work, watched)
    were_on(two, work, 1, 2)
    assert sorted(set(watched.steps)) == list(range(1, 41)) and len(watched.steps) >= 40
    assert folder_digest(done.result.folder) == expected
    wait_until(lambda: not two.ranks(1) and not two.ranks(2))


def test_a_rank_that_is_killed_costs_no_byte(spec: SftSpec, work: Work, two: Hosts, expected: str) -> None:
    done = run_training("sft", spec, work, Watched({10: lambda: os.kill(two.ranks(2)[0], signal.SIGKILL)}))
    were_on(two, work, 1, 2)
    assert folder_digest(done.result.folder) == expected


def test_a_partition_of_a_minute_costs_no_byte(spec: SftSpec, work: Work, two: Hosts, expected: str) -> None:
    """Ray takes the host for lost; it finds itself so when it is back, and whoever supervises it starts it again."""

    def partition() -> None:
        before = two.pids(2)
        two.cut(2)
        time.sleep(PARTITION)
        two.join(2)
        wait_until(lambda: not set(before) & set(two.pids(2)))
        two.start(2)

    done = run_training("sft", spec, work, Watched({10: partition}))
    assert folder_digest(done.result.folder) == expected
    wait_until(lambda: not two.ranks(1) and not two.ranks(2))


def test_a_head_that_is_killed_takes_all_ranks_with_it_and_the_next_try_goes_on(
    spec: SftSpec, work: Work, two: Hosts, expected: str
) -> None:
    def lose_head() -> None:
        two.lose(1)
        two.start(1)

    with pytest.raises(TrainingDied, match="Ray does not know it any more"):
        run_training("sft", spec, work, Watched({10: lose_head}))
    wait_until(lambda: not two.pids(2))  # a node without its head ends by itself
    kept, watched = reached(work), Watched({})
    assert kept >= 10
    two.start(2)
    done = run_training("sft", spec, work, watched)
    assert watched.steps == list(range(kept + 1, 41))
    assert folder_digest(done.result.folder) == expected


def test_a_cancelled_run_leaves_a_state_and_no_rank_on_any_host(
    spec: SftSpec, work: Work, two: Hosts, expected: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_training("sft", spec, work, Watched({10: cancel}))
    assert jobs_of(spec.compute).status(job_of(work)) == "SUCCEEDED"  # by itself, within its grace
    wait_until(lambda: not two.ranks(1) and not two.ranks(2))
    kept, watched = reached(work), Watched({})
    done = run_training("sft", spec, work, watched)
    assert watched.steps == list(range(kept + 1, 41))
    assert folder_digest(done.result.folder) == expected


def cancel() -> None:
    raise KeyboardInterrupt


def test_the_ranks_of_a_run_that_is_killed_and_not_tried_again_end_on_all_hosts(
    spec: SftSpec, work: Work, two: Hosts, tmp_path: Path
) -> None:
    slow = replace(spec, settings=spec.settings.changed(epochs=2000), compute=on_ray(two, 2, orphan_seconds=8))
    (tmp_path / "spec.json").write_text(spec_to_json(slow))
    run = forked(run_until_killed, tmp_path / "spec.json", work.folder)
    wait_until(lambda: states_in(work.state))
    job = job_of(work)
    assert two.ranks(1) and two.ranks(2)
    os.kill(run.pid or 0, signal.SIGKILL)
    assert jobs_of(slow.compute).wait(job, 600)
    assert jobs_of(slow.compute).status(job) == "SUCCEEDED"
    wait_until(lambda: not two.ranks(1) and not two.ranks(2))
    assert states_in(work.state)


def test_a_host_that_was_frozen_for_a_minute_keeps_nothing_of_what_it_trains(
    plain: SftSpec, work: Work, two: Hosts, tmp_path: Path
) -> None:
    """The fence: a rank that the cluster has given up goes on after another one has begun in its place."""
    spec = replace(plain, compute=on_ray(two, 1, per_process={"CPU": 1, NO_HEAD: 1}))

    def freeze() -> None:
        first, woken = attempt(work), time.monotonic() + PARTITION
        two.cut(2)
        two.send(2, signal.SIGSTOP)
        reached_by_first = reached(work)
        two.start(3)
        wait_until(lambda: attempt(work) != first and reached(work) > reached_by_first and time.monotonic() > woken)
        two.send(2, signal.SIGCONT)
        wait_until(lambda: said_by_rank(two, "has taken over this training; this one keeps nothing more"))

    done = run_training("sft", spec, work, Watched({10: freeze}))
    were_on(two, work, 2, 3)
    two.join(2)
    wait_until(lambda: not two.pids(2) and not two.ranks(3))
    alone = replace(plain, output=tmp_path / "alone", compute=ComputeSettings(threads=1, device="cpu"))
    assert folder_digest(done.result.folder) == folder_digest(train_sft(alone).folder)


def attempt(work: Work) -> str:
    return read_record(Owner, work.folder / OWNER_RECORD).attempt


def said_by_rank(made: Hosts, sentence: str) -> bool:
    """Whether a process of Ray's has written it into its log."""
    return any(sentence in path.read_text(errors="replace") for path in made.cluster.folder.rglob("worker-*.err"))


@pytest.fixture
def samples(base: Path, tables: Tables, two: Hosts) -> ShardTask:
    """60 rows in ten parts."""
    prompts = read_parquet(tables.prompts).to_pandas()["text"].tolist()[:30]
    return ShardTask("samples", base, prompts, VARIABLE.changed(batch_size=6), on_ray(two, 2), seed=5, n=2)


def drawn_here(task: ShardTask) -> list[list[object]]:
    plain = sample(task.policy, task.prompts, task.sampling, task.seed, task.n, compute=COMPUTE)
    return [[one.text, one.token_ids, one.log_probs] for one in plain]


def test_samples_are_the_same_where_a_host_is_killed_as_they_are_drawn(
    samples: ShardTask, work: Work, two: Hosts
) -> None:
    rows = rows_on_ray(samples, work, Watched({2: lambda: two.lose(2)}))
    assert rows == drawn_here(samples)


def test_sampling_that_is_cancelled_leaves_its_parts_and_no_process(samples: ShardTask, work: Work, two: Hosts) -> None:
    with pytest.raises(KeyboardInterrupt):
        rows_on_ray(samples, work, Watched({2: cancel}))
    wait_until(lambda: not two.at_work(1, "part_on_node") and not two.at_work(2, "part_on_node"))
    kept, watched = len(list(work.state.iterdir())), Watched({})
    assert kept >= 2
    assert rows_on_ray(samples, work, watched) == drawn_here(samples)
    assert watched.steps[:1] == [kept + 1] or kept == 10
