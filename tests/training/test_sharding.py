"""Models in parts, one on each of several ranks, train what whole models train."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ppo_modes import MODES, spec_of
from pydantic import ValidationError
from test_ranks import WORLD, Asked, train_on_ranks, weights
from toy_language import COMPUTE, Tables

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.training import ComputeSettings
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING, Checkpointing, TrainingStopped
from rlhf_dagster.training.runtime.sharding.states import REST
from rlhf_dagster.training.runtime.state_folders import states_in
from rlhf_dagster.training.specs import TrainingResult, silent

IN_PARTS = COMPUTE.changed(launch="process", processes=WORLD, sharding="full")
CLIPPED = {"max_grad_norm": 0.5}
UNEVEN = {"batch_size": 19, "minibatches": 2}
"""Episodes of which the ranks have 9 and 10."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    # A norm of gradients that took parameters while they were whole would leave out those around the layers.
    "separate": ("separate", CLIPPED | UNEVEN),
    "lora": ("lora", CLIPPED),
    **{f"{mode}_long": (mode, CLIPPED) for mode in MODES},
}
"""A mode of PPO and more settings."""
SHORT_CASES = ("separate", "lora")

Train = Callable[[str], TrainingResult]


def specs_of(case: str, sft: Path, reward: Path, tables: Tables, output: Path) -> tuple[str, Any]:
    """The stage and the spec, for one process, of a case."""
    mode, changes = CASES[case]
    spec = spec_of(mode, sft, reward, tables, output)
    # 9 and 10 episodes are read 9 at a time: in one pass by a rank alone, and in two by both together.
    sampling = spec.sampling.changed(batch_size=9)
    return "ppo", replace(spec, settings=spec.settings.changed(**changes), sampling=sampling)


@pytest.fixture(scope="module")
def spec(deep_sft: Path, deep_reward: Path, tables: Tables) -> Callable[[str, Path], tuple[str, Any]]:
    return lambda case, output: specs_of(case, deep_sft, deep_reward, tables, output)


@pytest.fixture(scope="module")
def alone(spec: Callable[[str, Path], tuple[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Train:
    """What one process trains in a case."""
    folder, results = tmp_path_factory.mktemp("alone"), {}

    def train(case: str) -> TrainingResult:
        if case not in results:
            results[case] = train_here(*spec(case, folder / case), silent, KEEP_NOTHING)
        return results[case]

    return train


def sharded(trained: tuple[str, Any], compute: ComputeSettings = IN_PARTS, **asked: Any) -> Asked:
    stage, spec = trained
    return Asked(stage, replace(spec, compute=compute), **asked)


@pytest.fixture(scope="module")
def together(
    request: pytest.FixtureRequest,
    spec: Callable[[str, Path], tuple[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, list[dict[str, Any]]]]:
    """What two ranks train with models in parts: the cases asked for, and one that is interrupted and goes on."""
    folder = tmp_path_factory.mktemp("together")
    name = test_ranks_with_parts_train_what_one_process_trains.__name__
    items = [item for item in request.session.items if getattr(item, "originalname", "") == name]
    cases = [item.callspec.params["case"] for item in items]
    stage, one_rank = spec("separate", folder / "from_one")
    with pytest.raises(TrainingStopped):
        train_here(stage, one_rank, silent, Checkpointing(folder / "state_of_one", 3600, lambda: "enough"))
    asked = {case: sharded(spec(case, folder / case)) for case in cases} | {
        "from_one": sharded((stage, one_rank), state=folder / "state_of_one"),
        "stopped": sharded(spec("separate", folder / "stopped"), state=folder / "state", reason="enough"),
        "kept": sharded(spec("separate", folder / "kept"), state=folder / "kept_state", reason="enough"),
        "went_on": sharded(spec("separate", folder / "went_on"), state=folder / "state"),
    }
    outcomes = train_on_ranks(folder, list(asked.values()))
    return folder, {name: list(row) for name, row in zip(asked, zip(*outcomes, strict=True), strict=True)}


def assert_trained_the_same(outcome: dict[str, Any], folder: Path, expected: TrainingResult) -> None:
    assert outcome["curves"].keys() == expected.curves.keys()
    for curve, values in expected.curves.items():
        assert outcome["curves"][curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
    assert outcome["metrics"] == pytest.approx(expected.metrics, rel=1e-3, abs=1e-4)
    files = [file.relative_to(expected.folder) for file in expected.folder.rglob("*") if file.is_file()]
    assert sorted(files) == sorted(file.relative_to(folder) for file in folder.rglob("*") if file.is_file())
    for file in files:
        if file.suffix == ".safetensors":
            torch.testing.assert_close(weights(folder / file), weights(expected.folder / file), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if case in SHORT_CASES else [pytest.mark.long]) for case in CASES]
)
def test_ranks_with_parts_train_what_one_process_trains(
    case: str, alone: Train, together: tuple[Path, dict[str, list[dict[str, Any]]]]
) -> None:
    folder, outcomes = together
    for outcome in outcomes[case]:
        assert_trained_the_same(outcome, folder / case, alone(case))


def test_ranks_go_on_with_parts_from_the_state_of_one_process(
    alone: Train, together: tuple[Path, dict[str, list[dict[str, Any]]]]
) -> None:
    folder, outcomes = together
    assert outcomes["from_one"][0]["steps"] == [2, 3, 4]
    assert_trained_the_same(outcomes["from_one"][0], folder / "from_one", alone("separate"))


def test_ranks_stop_and_go_on_with_parts(alone: Train, together: tuple[Path, dict[str, list[dict[str, Any]]]]) -> None:
    folder, outcomes = together
    assert [outcome["stopped"] for outcome in outcomes["stopped"]] == ["enough"] * WORLD
    assert outcomes["went_on"][0]["steps"] == [2, 3, 4]
    assert_trained_the_same(outcomes["went_on"][0], folder / "went_on", alone("separate"))


def test_one_process_goes_on_from_the_state_of_ranks_with_parts(
    spec: Callable[[str, Path], tuple[str, Any]],
    alone: Train,
    together: tuple[Path, dict[str, list[dict[str, Any]]]],
) -> None:
    folder, steps = together[0], []
    (state,) = states_in(folder / "kept_state")
    # Each rank has written its part, and nothing in it runs code when it is read.
    assert {path.suffix for path in state.iterdir()} == {".safetensors", ".pt", ".json"}
    assert len(list(state.glob("*.safetensors"))) == WORLD
    torch.load(state / REST, weights_only=True)
    stage, whole = spec("separate", folder / "on_one")
    state_of = Checkpointing(folder / "kept_state", 3600)
    result = train_here(stage, whole, lambda step, *_, **__: steps.append(step), state_of)
    assert steps == [2, 3, 4]
    assert_trained_the_same({"curves": result.curves, "metrics": result.metrics}, result.folder, alone("separate"))


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
