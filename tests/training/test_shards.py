"""Samples, log-probs and scores in parts, on nodes of their own: the bytes of one process, and each done once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray_cluster import FakeRay
from toy_language import COMPUTE, VARIABLE, Tables

from rlhf_dagster.compute.exchange import Messages
from rlhf_dagster.compute.launchers import ray_work
from rlhf_dagster.compute.shards import ray_driver
from rlhf_dagster.compute.shards.on_node import part_on_node
from rlhf_dagster.compute.shards.on_ray import is_on_ray, rows_on_ray
from rlhf_dagster.compute.shards.part_files import read_part, write_part
from rlhf_dagster.compute.shards.task import OpenModels, ShardTask, rows_of_part
from rlhf_dagster.compute.work import CANCELLED, Work
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.stop_cord import pull
from rlhf_dagster.records.parquet import read_parquet
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.reward.scores import load_reward_model, score_by_heads, score_responses
from rlhf_dagster.training.runtime.resuming import TrainingStopped
from rlhf_dagster.training.sampling.sample import response_log_probs, sample
from rlhf_dagster.training.specs import silent

RAY = COMPUTE.changed(launch="ray", processes=2)
SAMPLING = VARIABLE.changed(batch_size=6)


@pytest.fixture
def prompts(tables: Tables) -> list[str]:
    return read_parquet(tables.prompts).to_pandas()["text"].tolist()[:11]


@pytest.fixture
def samples(sft: Path, prompts: list[str]) -> ShardTask:
    """33 rows in parts of 6: parts begin within a prompt's samples."""
    return ShardTask("samples", sft, prompts, SAMPLING, RAY, seed=5, n=3)


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path / "work" / "shards", LocalStore(tmp_path))


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, work: Work, done: list[int]) -> FakeRay:
    """A cluster whose nodes are this process: the job is done at the first look."""

    class Nodes:
        def do(self, folder: str, job: str, identity: str, number: int) -> tuple[int, str]:
            done.append(number)
            return number, part_on_node(folder, job, identity, number)

        def wait(self, going: set[tuple[int, str]]) -> tuple[list[str], set[tuple[int, str]]]:
            _, said = going.pop()
            return [said], going

    @contextmanager
    def on_nodes(settings: Any) -> Iterator[Nodes]:
        yield Nodes()

    def does(job: str) -> str:
        monkeypatch.setattr("sys.argv", ["driver", str(work.folder), job])
        ray_driver.main()
        return "SUCCEEDED"

    fake = FakeRay(does=does)
    monkeypatch.setattr(ray_driver, "_on_nodes", on_nodes)
    monkeypatch.setattr(ray_work.RayJobs, "at", lambda address: fake)
    for name in ("_POLL", "_LOOK", "_BEAT", "_LOG"):
        monkeypatch.setattr(ray_work, name, 0.0)
    return fake


@pytest.fixture
def done() -> list[int]:
    """The parts that were done, in order."""
    return []


def test_samples_in_parts_are_the_bytes_of_one_process(
    samples: ShardTask, prompts: list[str], work: Work, ray: FakeRay, done: list[int]
) -> None:
    rows = rows_on_ray(samples, work, silent)
    plain = sample(samples.policy, prompts, SAMPLING, 5, 3, compute=COMPUTE)
    assert rows == [[one.text, one.token_ids, one.log_probs] for one in plain]
    assert sorted(done) == list(range(6)) and [len(part) for part in samples.parts()] == [6, 6, 6, 6, 6, 3]
    assert not work.folder.exists()
    assert len(ray.submitted) == 1


def test_log_probs_in_parts_are_the_bytes_of_one_process(
    base: Path, samples: ShardTask, prompts: list[str], work: Work, ray: FakeRay
) -> None:
    repeated = [prompt for prompt in prompts for _ in range(3)]
    given = [one.token_ids for one in sample(samples.policy, prompts, SAMPLING, 5, 3, compute=COMPUTE)]
    task = ShardTask("log_probs", base, repeated, SAMPLING, RAY, responses=given)
    assert rows_on_ray(task, work, silent) == response_log_probs(base, repeated, given, SAMPLING, COMPUTE)


def test_the_best_of_parts_are_the_bytes_of_one_process(
    samples: ShardTask, deep_sft: Path, deep_reward: Path, work: Work, ray: FakeRay
) -> None:
    task = replace(samples, kind="best", policy=deep_sft, reward_model=deep_reward, n=2)
    whole = rows_of_part(task, range(len(task.prompts)), OpenModels(task))
    assert [len(part) for part in task.parts()] == [3, 3, 3, 2]
    assert rows_on_ray(task, work, silent) == whole


def test_scores_in_parts_are_the_bytes_of_one_process(
    deep_reward: Path, prompts: list[str], work: Work, ray: FakeRay, done: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two groups, in batches of two texts of similar length, three in a part; no batch has texts of both."""
    for name in ("rlhf_dagster.compute.shards.task", "rlhf_dagster.training.reward.memory"):
        monkeypatch.setattr(f"{name}.SCORED_AT_ONCE", 4)
    monkeypatch.setattr("rlhf_dagster.training.reward.memory.SCORED_TOKENS", 2 * 12)
    model, size = load_reward_model(deep_reward), len(prompts)
    texts, drawn = [*prompts, *prompts[::-1]], [None, [3, 4], *[None] * (2 * size - 2)]
    groups = [slice(0, size), slice(size, 2 * size)]
    task = ShardTask("scores", deep_reward, 2 * prompts, SAMPLING, RAY, texts=texts, drawn=drawn, groups=[size, size])
    rows = sorted(rows_on_ray(task, work, silent))
    assert [index for index, *_ in rows] == list(range(2 * size))
    assert [part.start for part in task.parts()] == [0, 4, 8, 11, 15, 19] and sorted(done) == list(range(6))
    given = [(model, prompts, texts[own], SAMPLING, COMPUTE, drawn[own]) for own in groups]
    assert [mean for _, mean, _ in rows] == [one for group in given for one in score_responses(*group)]
    assert [heads for *_, heads in rows] == [[*one] for group in given for one in score_by_heads(*group)]
    monkeypatch.setattr("rlhf_dagster.compute.shards.task.MOST_PARTS_OF_SCORES", 2)
    assert [len(part) for part in task.parts()] == [8, 3, 8, 3]


def test_the_stop_cord_ends_it_and_what_is_done_stays(
    samples: ShardTask, work: Work, ray: FakeRay, done: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: Messages, step: int, total: int, **numbers: float) -> None:
        pull(work.store, "anna", "the prompts are wrong")

    monkeypatch.setattr(Messages, "progress", stop)
    with pytest.raises(TrainingStopped, match="anna: the prompts are wrong"):
        rows_on_ray(samples, work, silent)
    assert read_part(work.folder, samples.identity, done[0]) is not None


def test_parts_that_are_there_are_not_done_again(
    samples: ShardTask, work: Work, ray: FakeRay, done: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job is asked to end after two parts; one of them is damaged before the next try."""

    def enough(self: Messages, step: int, total: int, **numbers: float) -> None:
        if step == 2:
            (work.folder / CANCELLED).write_text("that is enough")

    with monkeypatch.context() as patch, pytest.raises(TrainingStopped, match="that is enough"):
        patch.setattr(Messages, "progress", enough)
        rows_on_ray(samples, work, silent)
    kept = sorted(number for number in range(6) if read_part(work.folder, samples.identity, number) is not None)
    assert len(kept) == len(done) < 6
    (damaged,) = work.state.glob(f"*-{kept[0]:06d}.json")
    damaged.write_bytes(damaged.read_bytes()[:-9])
    done.clear()
    rows_on_ray(samples, work, silent)
    assert sorted(done) == [number for number in range(6) if number not in kept[1:]]


def test_parts_of_something_else_are_not_taken(samples: ShardTask, work: Work, ray: FakeRay, done: list[int]) -> None:
    work.state.mkdir(parents=True)
    write_part(work.folder, replace(samples, seed=6).identity, 0, [["no", [], []]])
    assert rows_on_ray(samples, work, silent)[0][0] != "no"
    assert sorted(done) == list(range(6))


def test_what_a_node_lacks_and_what_cannot_be_are_said(
    samples: ShardTask, work: Work, ray: FakeRay, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="absent"):
        rows_on_ray(replace(samples, policy=tmp_path / "absent"), work, silent)
    assert "does not see /nowhere" in part_on_node("/nowhere", "rlhf-1", samples.identity, 0)


def test_a_node_that_is_cut_off_writes_no_part(samples: ShardTask, work: Work, ray: FakeRay) -> None:
    def does(job: str) -> str:
        said.append(part_on_node(str(work.folder), "rlhf-older", samples.identity, 0))
        return "STOPPED"

    said: list[str] = []
    ray.does = does
    with pytest.raises(ray_work.TrainingDied):
        rows_on_ray(samples, work, silent)
    assert said == [f"Another job has taken over {work.folder}."]
    assert read_part(work.folder, samples.identity, 0) is None


def test_only_native_samples_are_drawn_in_parts(samples: ShardTask) -> None:
    assert is_on_ray(samples)
    assert not is_on_ray(replace(samples, compute=COMPUTE))
    assert not is_on_ray(replace(samples, compute=RAY.changed(rollout_backend="transformers")))
    assert is_on_ray(replace(samples, kind="scores", compute=RAY.changed(rollout_backend="transformers")))
    assert not is_on_ray(replace(samples, prompts=[]))
