"""Every way of PPO: trained and saved as a plain model, by one process or two, interrupted or not."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from judge_server import QUICK, judging, says, texts_in
from ppo_modes import ALSO_MIXED, MODES, spec_of
from test_ranks import Asked, train_on_ranks, weights
from test_resume import StopAfter, assert_same
from toy_language import Tables, about_training
from transformers import AutoModelForCausalLM

from rlhf_dagster.config.judging.reward import HttpReward
from rlhf_dagster.storage.local import LocalStore
from rlhf_dagster.training.ppo.train import train_ppo
from rlhf_dagster.training.runtime.resuming import Checkpointing, TrainingStopped
from rlhf_dagster.training.specs import TrainingResult

Train = Callable[[str], TrainingResult]
MIXED = [pytest.param(mode, marks=[pytest.mark.long] if mode in ALSO_MIXED else []) for mode in MODES]


@pytest.fixture(scope="module")
def alone(deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """What a mode trains in one process that nobody interrupts."""
    folder, results = tmp_path_factory.mktemp("alone"), {}

    def train(mode: str) -> TrainingResult:
        if mode not in results:
            results[mode] = train_ppo(spec_of(mode, deep_sft, deep_reward, tables, folder / mode))
        return results[mode]

    return train


@pytest.fixture(scope="module")
def together(
    request: pytest.FixtureRequest,
    deep_sft: Path,
    deep_reward: Path,
    tables: Tables,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[dict[str, Any]]]:
    """What two processes train, and what each says of it."""
    folder, modes = tmp_path_factory.mktemp("together"), asked_for(request)
    asked = [Asked("ppo", spec_of(mode, deep_sft, deep_reward, tables, folder / mode)) for mode in modes]
    return folder, [dict(zip(modes, outcomes, strict=True)) for outcomes in train_on_ranks(folder, asked)]


def asked_for(request: pytest.FixtureRequest) -> list[str]:
    """The modes of which this session asks what two ranks train."""
    of_ranks = test_two_ranks_train_what_one_process_trains.__name__
    found = [item for item in request.session.items if getattr(item, "originalname", "") == of_ranks]
    return [item.callspec.params["mode"] for item in found if item.path == request.path]


@pytest.mark.parametrize("mode", MODES)
def test_it_trains_and_leaves_a_plain_model(mode: str, alone: Train, deep_sft: Path) -> None:
    result = alone(mode)
    assert result.curves["kl"][0] == pytest.approx(0, abs=1e-4)
    # Ahead, the first update alone begins as the policy that its responses are from; the second's are of the start.
    same = 1 if "rollouts_ahead" in MODES[mode] else 4
    assert result.curves["ratio_first"][:same] == pytest.approx([1.0] * same, abs=1e-4)
    assert all(abs(ratio - 1) > 1e-3 for ratio in result.curves["ratio_first"][same:])
    assert abs(result.curves["kl"][-1]) > 1e-4
    assert about_training(result.warnings) == []
    plain, report = AutoModelForCausalLM.from_pretrained(result.folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    start = AutoModelForCausalLM.from_pretrained(deep_sft)
    assert any(not torch.equal(a, b) for a, b in zip(plain.parameters(), start.parameters(), strict=True))


@pytest.mark.parametrize("mode", MIXED)
def test_stopped_and_taken_up_again_it_ends_as_if_it_had_not_been(
    mode: str, alone: Train, deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path
) -> None:
    spec = spec_of(mode, deep_sft, deep_reward, tables, tmp_path / "output")
    for steps in (1, 2):
        with pytest.raises(TrainingStopped):
            train_ppo(spec, checkpointing=Checkpointing(tmp_path / "state", 3600, StopAfter(steps)))
    seen: list[int] = []
    result = train_ppo(spec, lambda step, *_, **__: seen.append(step), Checkpointing(tmp_path / "state", 3600))
    assert seen == [4]
    assert_same(result, alone(mode))


@pytest.mark.parametrize("mode", MIXED)
def test_two_ranks_train_what_one_process_trains(
    mode: str, alone: Train, together: tuple[Path, list[dict[str, Any]]]
) -> None:
    expected, (folder, outcomes) = alone(mode), together
    for outcome in outcomes:
        assert outcome[mode]["curves"].keys() == expected.curves.keys()
        for curve, values in expected.curves.items():
            assert outcome[mode]["curves"][curve] == pytest.approx(values, rel=1e-3, abs=1e-4), curve
    for file in expected.folder.rglob("*.safetensors"):
        other = weights(folder / mode / file.relative_to(expected.folder))
        torch.testing.assert_close(other, weights(file), atol=1e-4, rtol=0)


def test_a_bad_reward_function_ends_all_ranks(
    deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path
) -> None:
    """One of two ranks fails; the other must not wait for it."""
    spec = spec_of("function", deep_sft, deep_reward, tables, tmp_path / "ppo")
    failing = Asked("ppo", replace(spec, reward_function="ppo_modes:raises_on_the_second_rank"))
    for outcome in train_on_ranks(tmp_path, [failing]):
        assert "raised ZeroDivisionError" in outcome[0]["error"]


def test_two_ranks_ask_one_judge_within_one_budget(
    deep_sft: Path, deep_reward: Path, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = HttpReward(kind="http", model="judge-1", service=QUICK)
    spec = replace(spec_of("rloo", deep_sft, deep_reward, tables, tmp_path / "ppo"), reward_model=None, reward=judge)
    by_length: Callable[..., Any] = lambda asked: says(  # noqa: E731
        json.dumps({"rating": 1 + len(texts_in(asked)["response"]) % 10})
    )
    with judging(by_length, monkeypatch) as server:
        expected = train_ppo(replace(spec, output=tmp_path / "one")).curves
        alone = len(server.asked)
        outcomes = train_on_ranks(tmp_path, [Asked("ppo", replace(spec, answers=str(tmp_path / "answers")))])
        asked = len(server.asked) - alone
    for outcome in outcomes:
        assert outcome[0]["curves"]["reward"] == pytest.approx(expected["reward"], rel=1e-3, abs=1e-4)
    store = LocalStore(tmp_path / "answers")
    # The two may ask the same at once; what both had asked is counted twice, and kept once.
    assert len(store.list("answers/spent")) == asked >= len(store.list("answers/given")) == alone
