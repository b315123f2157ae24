"""A training that is ended at any step, by request or by force, ends with the files that it would have had."""

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from forks import forked, join_all
from toy_language import COMPUTE, FIXED, TINY, Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.compute import worker
from rlhf_dagster.compute.exchange import OUTCOME, Request, TrainingOutcome, read_record
from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.lineage.model_folders import folder_digest
from rlhf_dagster.training.dpo import train as dpo
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped, fingerprint
from rlhf_dagster.training.runtime.state_keeper import StateKeeper
from rlhf_dagster.training.specs import PpoSpec, TinyModelSpec, TrainingResult, spec_to_json

Make = Callable[[Path], Any]
STAGES = ("tiny_model", "sft", "reward_model", "ppo", "dpo")
KILLED = ("reward_model", "ppo")
"""Stages of which a process is killed in every test run; the others are stopped there, and killed in the long one."""
PPO = PpoSettings(updates=6, batch_size=16, learning_rate=3e-3, kl_target=2.0, kl_horizon=64, pretraining_coef=0.5)


@pytest.fixture(scope="module")
def reward(sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = reward_spec(sft, tables, tmp_path_factory.mktemp("reward") / "model")
    return train_here("reward_model", spec, lambda *_, **__: None, Checkpointing()).folder


@pytest.fixture(scope="module")
def specs(base: Path, sft: Path, reward: Path, tables: Tables) -> dict[str, Make]:
    return {
        "tiny_model": lambda output: TinyModelSpec(tables.text, output, TINY.changed(steps=12), COMPUTE),
        "sft": lambda output: longer(sft_spec(base, tables, output)),
        "reward_model": lambda output: reward_spec(sft, tables, output),
        "ppo": lambda output: PpoSpec(
            sft, sft, reward, tables.prompts, tables.text, output, PPO, FIXED, seed=1, compute=COMPUTE
        ),
        "dpo": lambda output: with_adapters(dpo_spec(sft, tables, output)),
    }


@pytest.fixture(scope="module")
def whole(specs: dict[str, Make], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], TrainingResult]:
    """The result of each stage that nobody interrupted."""
    results: dict[str, TrainingResult] = {}

    def make(stage: str) -> TrainingResult:
        if stage not in results:
            spec = specs[stage](tmp_path_factory.mktemp("whole") / stage)
            results[stage] = train_here(stage, spec, lambda *_, **__: None, Checkpointing())
        return results[stage]

    return make


def longer(spec: Any) -> Any:
    return replace(spec, settings=spec.settings.changed(epochs=2))


def with_adapters(spec: Any) -> Any:
    return replace(spec, settings=spec.settings.changed(lora=LoraSettings(rank=2)))


class StopAfter:
    """A stop cord that is pulled after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __call__(self) -> str:
        self.left -= 1
        return "that is enough" if self.left == 0 else ""


def assert_same(result: TrainingResult, other: TrainingResult) -> None:
    assert folder_digest(result.folder) == folder_digest(other.folder)
    assert result.curves == other.curves
    assert result.metrics == other.metrics


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("stops", [(2, 1), *(pytest.param(stops, marks=pytest.mark.long) for stops in ((1,), (3, 2)))])
def test_stopped_and_taken_up_again_it_ends_as_if_it_had_not_been(
    stage: str, stops: tuple[int, ...], specs: dict[str, Make], whole: Callable[[str], TrainingResult], tmp_path: Path
) -> None:
    spec, seen = specs[stage](tmp_path / "output"), []
    for steps in stops:
        checkpointing = Checkpointing(tmp_path / "state", 3600, StopAfter(steps))
        with pytest.raises(TrainingStopped, match="that is enough"):
            train_here(stage, spec, lambda step, *_, **__: seen.append(step), checkpointing)
        assert not (tmp_path / "output").exists()
    checkpointing = Checkpointing(tmp_path / "state", 3600)
    result = train_here(stage, spec, lambda step, *_, **__: seen.append(step), checkpointing)
    assert seen == list(range(1, len(seen) + 1))
    assert_same(result, whole(stage))


@pytest.mark.parametrize(
    "stage", [stage if stage in KILLED else pytest.param(stage, marks=pytest.mark.long) for stage in STAGES]
)
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(
    stage: str, specs: dict[str, Make], whole: Callable[[str], TrainingResult], tmp_path: Path
) -> None:
    """A process of its own, killed with SIGKILL at random steps while it writes a state after each."""
    spec, rng = specs[stage](tmp_path / "output"), random.Random(stage)
    request = Request(stage, spec_to_json(spec), str(tmp_path / "state"), 0.0, str(tmp_path / "end"), str(tmp_path))
    (tmp_path / "request.json").write_text(json.dumps(asdict(request)))
    messages, done = tmp_path / "messages.jsonl", tmp_path / OUTCOME
    for _ in range(2):
        before = _lines(messages)
        process = forked(_work, tmp_path / "request.json")
        while _lines(messages) == before and process.is_alive():
            time.sleep(0.005)
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.join()
    join_all([forked(_work, tmp_path / "request.json")])
    result = json.loads(read_record(TrainingOutcome, done).result)
    assert_same(TrainingResult(Path(result["folder"]), result["metrics"], result["curves"]), whole(stage))


def _work(request: Path) -> None:
    with mock.patch.object(sys, "argv", ["worker", str(request)]):
        worker.main()


def _lines(path: Path) -> int:
    return len(path.read_bytes().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("stage", ["tiny_model", "ppo", "sft"])
def test_a_damaged_state_is_not_gone_on_from(
    stage: str, specs: dict[str, Make], whole: Callable[[str], TrainingResult], tmp_path: Path
) -> None:
    spec = specs[stage](tmp_path / "output")
    with pytest.raises(TrainingStopped):
        train_here(stage, spec, lambda *_, **__: None, Checkpointing(tmp_path / "state", 3600, StopAfter(2)))
    for file in (tmp_path / "state").rglob("*"):
        if file.suffix == ".pt" or file.name == "trainer_state.json":
            file.write_bytes(file.read_bytes()[:100])
    steps: list[int] = []
    result = train_here(stage, spec, lambda step, *_, **__: steps.append(step), Checkpointing(tmp_path / "state", 3600))
    assert steps[0] == 1
    assert_same(result, whole(stage))


def test_a_state_of_other_settings_or_inputs_is_not_gone_on_from(specs: dict[str, Make], tmp_path: Path) -> None:
    spec = specs["ppo"](tmp_path / "output")
    with pytest.raises(TrainingStopped):
        train_here("ppo", spec, lambda *_, **__: None, Checkpointing(tmp_path / "state", 3600, StopAfter(2)))
    other = replace(spec, settings=spec.settings.changed(learning_rate=1e-3))
    assert StateKeeper(Checkpointing(tmp_path / "state"), fingerprint(spec)).newest() is not None
    assert StateKeeper(Checkpointing(tmp_path / "state"), fingerprint(other)).newest() is None


def test_a_fingerprint_is_of_settings_and_content_and_not_of_places(specs: dict[str, Make], tmp_path: Path) -> None:
    spec = specs["ppo"](tmp_path / "output")
    elsewhere = replace(spec, output=tmp_path / "other", compute=spec.compute.changed(threads=2))
    assert fingerprint(elsewhere) == fingerprint(spec)
    copy = tmp_path / "prompts.parquet"
    copy.write_bytes(spec.prompts.read_bytes())
    assert fingerprint(replace(spec, prompts=copy)) == fingerprint(spec)
    copy.write_bytes(spec.prompts.read_bytes() + b"x")
    assert fingerprint(replace(spec, prompts=copy)) != fingerprint(spec)
    assert fingerprint(replace(spec, seed=2)) != fingerprint(spec)


def test_a_fingerprint_is_of_the_code_of_a_reward_function(specs: dict[str, Make], tmp_path: Path) -> None:
    prints = set()
    for name, code in (("a.py", "def f(p, r): return 1"), ("b.py", "def f(p, r): return 1"), ("c.py", "def f(): pass")):
        (tmp_path / name).write_text(code)
        prints.add(fingerprint(replace(specs["ppo"](tmp_path), reward_function=f"{tmp_path / name}:f")))
    assert len(prints) == 2


def test_a_full_disk_leaves_the_last_good_state(tmp_path: Path) -> None:
    keeper = StateKeeper(Checkpointing(tmp_path / "state", 0.0), "a")
    keeper.write(1, lambda folder: (folder / "x").write_text("1") and None)

    def fails(folder: Path) -> None:
        (folder / "x").write_text("half")
        raise OSError(28, "No space left on device")

    keeper.write(2, fails)
    newest = keeper.newest()
    assert newest is not None
    assert (newest / "x").read_text() == "1"
    assert not list((tmp_path / "state").glob(".state-*"))

    keeper.after_step(2, lambda: {"x": "2"})
    assert keeper.load(torch.device("cpu")) == {"x": "2"}
    assert not newest.exists()


def test_the_reference_is_not_computed_again(
    specs: dict[str, Make], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, state = specs["dpo"](tmp_path / "output"), tmp_path / "state"
    with pytest.raises(TrainingStopped):
        train_here("dpo", spec, lambda *_, **__: None, Checkpointing(state, 3600, StopAfter(1)))

    def never(*_: Any) -> None:
        raise AssertionError("the reference was computed again")

    monkeypatch.setattr(dpo, "reference_log_probs", never)
    train_here("dpo", spec, lambda *_, **__: None, Checkpointing(state, 3600))
    with pytest.raises(AssertionError, match="computed again"):
        train_here("dpo", replace(spec, seed=8), lambda *_, **__: None, Checkpointing(state, 3600))
