"""Several processes train what one process trains."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import ranks
import torch
from forks import forked, join_all
from label_studio import free_port
from safetensors.torch import load_file
from toy_language import COMPUTE, FIXED, VARIABLE, Tables, dpo_spec, reward_spec, sft_spec

from rlhf_dagster.compute.trainings import train_here
from rlhf_dagster.config.training import LoraSettings, PpoSettings
from rlhf_dagster.training.ppo.policy import VALUE_HEAD_FILE
from rlhf_dagster.training.runtime.resuming import KEEP_NOTHING
from rlhf_dagster.training.specs import PpoSpec, TrainingResult, silent, spec_to_json

WORLD = 2
# 19 episodes and minibatches of 10 and 9 rows: neither is even.
PPO = PpoSettings(
    updates=4, batch_size=19, minibatches=2, learning_rate=3e-3, pretraining_coef=0.5, max_grad_norm=0.5, kl_horizon=64
)


@dataclass(frozen=True)
class Asked:
    stage: str
    spec: Any
    state: Path | None = None
    reason: str = ""

    def row(self) -> list[Any]:
        return [self.stage, spec_to_json(self.spec), self.state and str(self.state), self.reason]


def train_on_ranks(folder: Path, asked: Sequence[Asked], world: int = WORLD) -> list[list[dict[str, Any]]]:
    """What each of ``world`` ranks got, for each training asked for."""
    (folder / "asked.json").write_text(json.dumps([training.row() for training in asked]))
    port = free_port()
    join_all([forked(ranks.main, folder / "asked.json", rank, world, port) for rank in range(world)])
    return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(world)]


@pytest.fixture(scope="module")
def specs(
    base: Path, sft: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[str, Any]]:
    """Stage and spec of what is trained. Its output is a folder of its name beside the others."""
    folder = tmp_path_factory.mktemp("one")
    # 65 rows in batches of 16: the last batch has one, and so a rank has none.
    demonstrations = sft_spec(base, tables, folder / "sft")
    labels = reward_spec(sft, tables, folder / "reward_model")
    labels = replace(labels, settings=labels.settings.changed(epochs=1, batch_size=17, accumulate=2))
    ppo = PpoSpec(sft, sft, labels.output, tables.prompts, tables.text, folder / "ppo", PPO, FIXED, 1, COMPUTE)
    ending = replace(ppo, output=folder / "ppo_ending", sampling=VARIABLE.changed(response_tokens=4))
    dpo = dpo_spec(sft, tables, folder / "dpo")
    # 350 comparisons in batches of 349: a rank has none of the last.
    dpo = replace(dpo, settings=dpo.settings.changed(batch_size=349, epochs=3))
    adapted = dpo.settings.changed(batch_size=64, lora=LoraSettings(rank=2), accumulate=3)
    return {
        "dpo": ("dpo", dpo),
        "dpo_lora": ("dpo", replace(dpo, settings=adapted, output=folder / "dpo_lora")),
        "kto": ("dpo", replace(dpo, settings=adapted.changed(loss="kto", epochs=1), output=folder / "kto")),
        "sft": ("sft", replace(demonstrations, settings=demonstrations.settings.changed(batch_size=23, epochs=2))),
        "reward_model": ("reward_model", labels),
        "ppo": ("ppo", ppo),
        "ppo_ending": ("ppo", replace(ending, settings=PPO.changed(missing_end_penalty=-1.0))),
    }


@pytest.fixture(scope="module")
def alone(specs: dict[str, tuple[str, Any]]) -> dict[str, TrainingResult]:
    return {name: train_here(stage, spec, silent, KEEP_NOTHING) for name, (stage, spec) in specs.items()}


@pytest.fixture(scope="module")
def together(
    specs: dict[str, tuple[str, Any]], alone: dict[str, TrainingResult], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, dict[str, Any]]]]:
    folder = tmp_path_factory.mktemp("several")
    asked = [Asked(stage, replace(spec, output=folder / name)) for name, (stage, spec) in specs.items()]
    return folder, [dict(zip(specs, outcomes, strict=True)) for outcomes in train_on_ranks(folder, asked)]


def weights(file: Path) -> dict[str, torch.Tensor]:
    """Of a model or a value head. The keys' bias is left out: attention does not depend on it, so that its gradient is
    the rounding of 0, which Adam scales up."""
    found = load_file(file)
    for name, tensor in found.items():
        if name.endswith("c_attn.bias"):
            third = len(tensor) // 3
            tensor[third : 2 * third] = 0
    return found


@pytest.mark.parametrize("name", ["sft", "reward_model", "ppo", "ppo_ending", "dpo", "dpo_lora", "kto"])
def test_two_ranks_train_what_one_process_trains(
    name: str, alone: dict[str, TrainingResult], together: tuple[Path, list[dict[str, dict[str, Any]]]]
) -> None:
    expected, (folder, outcomes) = alone[name], together
    for outcome in outcomes:
        assert outcome[name]["curves"].keys() == expected.curves.keys()
        for curve, values in expected.curves.items():
            assert outcome[name]["curves"][curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
        assert outcome[name]["metrics"] == pytest.approx(expected.metrics, rel=1e-3, abs=1e-4)
    for file in ("model.safetensors", *((VALUE_HEAD_FILE,) if name.startswith("ppo") else ())):
        torch.testing.assert_close(weights(folder / name / file), weights(expected.folder / file), atol=1e-4, rtol=0)
    steps = len(next(iter(expected.curves.values())))
    assert [outcome[name]["steps"] for outcome in outcomes] == [list(range(1, steps + 1)), []]


def test_ranks_stop_at_the_same_step_and_go_on_from_there(
    specs: dict[str, tuple[str, Any]], alone: dict[str, TrainingResult], tmp_path: Path
) -> None:
    asked = []
    for name in ("sft", "ppo"):
        stage, spec = specs[name]
        training = Asked(stage, replace(spec, output=tmp_path / name), tmp_path / f"{name}-state", "enough")
        asked += [training, replace(training, reason="")]
    for rank, outcomes in enumerate(train_on_ranks(tmp_path, asked)):
        for name, (stopped, finished) in zip(("sft", "ppo"), (outcomes[:2], outcomes[2:]), strict=True):
            assert stopped == {"stopped": "enough", "steps": [1] if rank == 0 else []}
            for curve, values in alone[name].curves.items():
                assert finished["curves"][curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
            assert finished["steps"][:1] == ([2] if rank == 0 else [])


def test_two_ranks_train_heads_ties_and_adapters_as_one_process_does(sft: Path, tables: Tables, tmp_path: Path) -> None:
    spec = reward_spec(sft, tables, tmp_path / "alone")
    changes = {"epochs": 1, "batch_size": 17, "heads": 2, "ties": "davidson", "lora": {"rank": 2}}
    spec = replace(spec, settings=spec.settings.changed(**changes))
    alone = train_here("reward_model", spec, silent, KEEP_NOTHING)
    (first, _) = train_on_ranks(tmp_path, [Asked("reward_model", replace(spec, output=tmp_path / "together"))])
    assert first[0]["curves"]["loss"] == pytest.approx(alone.curves["loss"], rel=1e-3, abs=1e-4)
    assert first[0]["metrics"] == pytest.approx(alone.metrics, rel=1e-3, abs=1e-3)
    own, other = (weights(folder / "model.safetensors") for folder in (tmp_path / "together", alone.folder))
    torch.testing.assert_close(own, other, atol=1e-4, rtol=0)
