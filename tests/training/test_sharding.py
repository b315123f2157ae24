"""Models in parts, one on each of several ranks, train what whole models train."""

import json
import os
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from forks import forked, join_all
from label_studio import free_port
from pydantic import ValidationError
from sharded_cases import CASES, IN_PARTS, Models, Spec, Train, require_the_same, sharded, spec_of_case
from test_ranks import WORLD, train_on_ranks
from toy_language import Tables

from rlhf_dagster.common.processes import descendants
from rlhf_dagster.compute import memory
from rlhf_dagster.compute.free_memory import Free
from rlhf_dagster.compute.memory import required_bytes
from rlhf_dagster.compute.run import run_training
from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.compute.work import TrainingDied, Work
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.sharding.states import REST
from rlhf_dagster.training.runtime.state_folders import states_in
from rlhf_dagster.training.specs import TrainingResult, silent

AT_ONCE = ("sft", "reward_model", "kto", "separate", "lora")
"""What `make test` tries; the rest is for `make test-long`."""


@pytest.fixture(scope="module")
def spec(base: Path, deep_sft: Path, deep_reward: Path, tables: Tables) -> Spec:
    """The stage of a case, and its spec for one process."""
    return partial(spec_of_case, Models(base, deep_sft, deep_reward), tables)


@pytest.fixture(scope="module")
def alone(spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """What one process trains in a case."""
    folder, results = tmp_path_factory.mktemp("alone"), {}

    def train(case: str) -> TrainingResult:
        if case not in results:
            results[case] = train_here(*spec(case, folder / case), silent, KEEP_NOTHING)
        return results[case]

    return train


def stop_after_one(trained: tuple[str, Any], state: Path) -> None:
    with pytest.raises(TrainingStopped):
        train_here(*trained, silent, Checkpointing(state, 3600, lambda: "enough"))


GOES_ON = ("sft", "lora")
"""Cases that are interrupted after a step."""
Outcomes = tuple[Path, dict[str, list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def together(request: pytest.FixtureRequest, spec: Spec, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """What two ranks train with models in parts: the cases asked for, and some that are interrupted and go on."""
    folder = tmp_path_factory.mktemp("together")
    name = test_ranks_with_parts_train_what_one_process_trains.__name__
    items = [item for item in request.session.items if getattr(item, "originalname", "") == name]
    asked = {case: sharded(spec(case, folder / case)) for case in (item.callspec.params["case"] for item in items)}
    for case in GOES_ON:
        stop_after_one(spec(case, folder / "unused"), folder / f"{case}_state_of_one")
        whole, parts, kept = (spec(case, folder / f"{case}_{name}") for name in ("from_one", "went_on", "unused"))
        asked[f"{case}_from_one"] = sharded(whole, state=folder / f"{case}_state_of_one")
        asked[f"{case}_stopped"] = sharded(parts, state=folder / f"{case}_state", reason="enough")
        asked[f"{case}_went_on"] = sharded(parts, state=folder / f"{case}_state")
        asked[f"{case}_kept"] = sharded(kept, state=folder / f"{case}_kept_state", reason="enough")
    outcomes = train_on_ranks(folder, list(asked.values()))
    return folder, {name: list(row) for name, row in zip(asked, zip(*outcomes, strict=True), strict=True)}


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.long][case in AT_ONCE :]) for case in CASES])
def test_ranks_with_parts_train_what_one_process_trains(case: str, alone: Train, together: Outcomes) -> None:
    folder, outcomes = together
    for outcome in outcomes[case]:
        require_the_same(outcome, folder / case, alone(case))


@pytest.mark.parametrize("case", GOES_ON)
def test_ranks_go_on_with_parts_from_the_state_of_one_process(case: str, alone: Train, together: Outcomes) -> None:
    folder, outcomes = together
    first = outcomes[f"{case}_from_one"][0]
    assert first["steps"][0] == 2
    require_the_same(first, folder / f"{case}_from_one", alone(case))


@pytest.mark.parametrize("case", GOES_ON)
def test_ranks_stop_and_go_on_with_parts(case: str, alone: Train, together: Outcomes) -> None:
    folder, outcomes = together
    assert [outcome["stopped"] for outcome in outcomes[f"{case}_stopped"]] == ["enough"] * WORLD
    first = outcomes[f"{case}_went_on"][0]
    assert first["steps"][0] == 2
    require_the_same(first, folder / f"{case}_went_on", alone(case))


@pytest.mark.parametrize("case", GOES_ON)
def test_one_process_goes_on_from_the_state_of_ranks_with_parts(
    case: str, spec: Spec, alone: Train, together: Outcomes
) -> None:
    folder, steps = together[0], []
    (state,) = states_in(folder / f"{case}_kept_state")
    # Each rank has written its part, and nothing in it runs code when it is read.
    assert len(list(state.glob("*.safetensors"))) == WORLD
    assert {path.suffix for path in state.rglob("*") if path.is_file()} <= {
        ".safetensors",
        ".pt",
        ".pth",
        ".json",
        ".bin",
    }
    torch.load(state / REST, weights_only=True)
    kept = Checkpointing(folder / f"{case}_kept_state", 3600)
    result = train_here(*spec(case, folder / f"{case}_on_one"), lambda step, *_, **__: steps.append(step), kept)
    assert steps[0] == 2
    require_the_same({"curves": result.curves, "metrics": result.metrics}, result.folder, alone(case))


@pytest.mark.long
@pytest.mark.parametrize("case", [*GOES_ON, "reward_model", "separate"])
def test_four_ranks_go_on_from_the_state_of_two(case: str, spec: Spec, alone: Train, tmp_path: Path) -> None:
    trained, state = spec(case, tmp_path / "output"), tmp_path / "state"
    for outcome in train_on_ranks(tmp_path, [sharded(trained, state=state, reason="enough")]):
        assert outcome[0]["stopped"] == "enough"
    four = sharded(trained, IN_PARTS.changed(processes=4), state=state)
    (first, *_) = train_on_ranks(tmp_path, [four], 4)
    assert first[0]["steps"][0] == 2
    require_the_same(first[0], tmp_path / "output", alone(case))


@pytest.mark.long
@pytest.mark.parametrize(("case", "sharding"), [("sft", "full"), ("separate", "auto")])
def test_a_rank_that_is_killed_costs_no_finished_step(
    case: str, sharding: str, spec: Spec, alone: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under `torchrun`, with models in parts that are asked for, or because whole ones would not fit."""
    stage, trained = spec(case, tmp_path / "work" / "output")
    trained = replace(trained, compute=IN_PARTS.changed(sharding=sharding, checkpoint_seconds=0.0, grace_seconds=5.0))
    if sharding == "auto":
        too_little = Free(WORLD * required_bytes(trained) - 1, "this machine", shared=True)
        monkeypatch.setattr(memory, "free_memory", lambda compute: too_little)
    steps: list[int] = []

    def kill_a_rank(step: int, *_: int, **__: float) -> None:
        steps.append(step)
        if step == 2:
            os.kill(pid_of_rank(1), signal.SIGKILL)

    work = Work(tmp_path / "work", LocalStore(tmp_path))
    with pytest.raises(TrainingDied):
        run_training(stage, trained, work, kill_a_rank)
    (state,) = states_in(work.state)
    assert len(list(state.glob("*.safetensors"))) == WORLD
    done = run_training(stage, trained, work, lambda step, *_, **__: steps.append(step)).result
    assert sorted(set(steps)) == list(range(1, steps[-1] + 1))
    require_the_same({"curves": done.curves, "metrics": done.metrics}, done.folder, alone(case))


def pid_of_rank(rank: int) -> int:
    """The process of a rank of a training that this process has started."""
    environments = {pid: Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") for pid in descendants(os.getpid())}
    return next(pid for pid, environment in environments.items() if f"RANK={rank}".encode() in environment)


def test_models_that_cannot_be_cut_are_refused_on_all_ranks(tmp_path: Path) -> None:
    port = free_port()
    join_all([forked(ranks.shard, tmp_path, ["zamba", "broken", "gpt2"], rank, WORLD, port) for rank in range(WORLD)])
    for rank in range(WORLD):
        shared, broken, right = (tmp_path / f"rank-{rank}.txt").read_text().splitlines()
        assert re.fullmatch(
            r"ZambaForCausalLM cannot be sharded \(several layers share model.layers.1.shared_transf.*\); set "
            "compute.sharding to none.",
            shared,
        )
        assert broken == (
            "GPT2LMHeadModel cannot be sharded (in parts it gives other numbers); set compute.sharding to none."
        )
        assert right == "cut"


def test_a_state_that_one_rank_cannot_write_leaves_the_one_before(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    port = free_port()
    join_all([forked(ranks.keep, tmp_path, rank, WORLD, port) for rank in range(WORLD)])
    rows = [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0], [6.0, 7.0, 8.0], [9.0, 10.0, 11.0], [12.0, 13.0, 14.0]]
    for rank, own in enumerate((rows[:3], rows[3:])):
        found = json.loads((tmp_path / f"rank-{rank}.json").read_text())
        assert found == ["state-000000001", own, "[2, 'text', (None, tensor(3))]"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"processes": 1}, "needs compute.processes above 1"),
        ({"optimizer": "adamw_8bit"}, "needs `compute.optimizer: adamw`"),
        ({"precision": "bf16", "trained_weights": "bf16"}, "needs `compute.trained_weights: fp32`"),
        ({"rollout_backend": "transformers"}, "needs `compute.rollout_backend: native`"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)):
        IN_PARTS.changed(**changes)


def test_codes_of_a_loop_are_not_held_in_parts() -> None:
    lora = {"rank": 2, "merge": False, "base_bits": 4}
    compute = {"launch": "process", "processes": 2, "sharding": "full"}
    with pytest.raises(ValidationError, match=r"reward_model.lora.base_bits and `compute.sharding: full` exclude"):
        LoopConfig.model_validate({"reward_model": {"lora": lora}, "compute": compute})
    LoopConfig.model_validate({"reward_model": {"lora": lora | {"base_bits": None}}, "compute": compute})
