"""Trainings on the hosts of a Ray cluster that are killed or cut off: they go on, or end, as they should."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from ray_cluster import let_in
from ray_hosts import Hosts, hosts, wait_until
from test_on_ray import digest_on_two_ranks, reached
from toy_language import Tables, sft_spec

from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.work import TrainingDied, Work
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.specs import SftSpec

pytestmark = [pytest.mark.integration, pytest.mark.long]
PARTITION = 60.0
"""Seconds."""
Happenings = dict[int, Callable[[], None]]
"""What happens, by the step."""


@pytest.fixture(scope="module")
def made() -> Iterator[Hosts]:
    with hosts(2) as found:
        yield found


@pytest.fixture
def two(made: Hosts, monkeypatch: pytest.MonkeyPatch) -> Hosts:
    """Ray runs on both, also where a test before has left only one."""
    for name, value in made.cluster.environment.items():
        monkeypatch.setenv(name, value)
    let_in(made.cluster, monkeypatch)
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
