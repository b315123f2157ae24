"""A loop whose policies are rewarded for something else than its reward model's score alone."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from fake_server import Asked
from judge_server import KEY, judging, says, texts_in
from loops import ROUND, Stages, asset_path, checkpoint

from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.lineage.manifest import read_manifest
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.trainings.keeping import StageResult
from rlhf_dagster.loop.trainings.ppo import make_ppo_policy
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.storage.base import Store

CopyOf = Callable[..., LoopRunner]
JUDGE = {"kind": "http", "model": "judge-1", "service": {"retries": 0}}


def train(loop: LoopFolder) -> StageResult:
    return make_ppo_policy(
        loop,
        ROUND,
        loop.config.ppo,
        sft=checkpoint(loop, "sft_checkpoint"),
        behaviour_policy=loop.registry.pin(ROUND),
        reward_model=checkpoint(loop, "reward_model", ROUND),
        prompts=asset_path(loop, "prompts"),
        pretraining_text=asset_path(loop, "pretraining_text"),
        preferences=asset_path(loop, "preference_dataset", ROUND),
        progress=lambda *_, **__: None,
    )


def test_a_function_beside_the_config_takes_the_reward_models_place(stages: Stages, copy_of: CopyOf) -> None:
    loop = copy_of(stages.unjudged, reward={"kind": "function", "function": "own.py:words", "weight": 0.5}).loop
    code = "def words(prompts, responses):\n    return [len(text.split()) for text in responses]\n"
    (loop.root / "own.py").write_text(code)
    result = train(loop)
    assert result.metrics["reward_from_function"] == pytest.approx(result.metrics["reward"])
    assert result.metrics["reward"] > 1
    manifest = read_manifest(result.checkpoint.folder)
    assert manifest["config"]["reward"] == {"kind": "function", "function": "own.py:words", "weight": 0.5}
    assert set(manifest["parents"]) == {"sft_checkpoint", "start"}


def test_a_sum_with_the_reward_model_has_it_as_parent(stages: Stages, copy_of: CopyOf) -> None:
    parts: list[dict[str, Any]] = [{"kind": "model"}, {"kind": "length", "longest": 1, "margin": 1, "weight": 2}]
    result = train(copy_of(stages.unjudged, reward={"kind": "ensemble", "parts": parts}).loop)
    assert result.metrics["reward_from_length"] == -2
    manifest = read_manifest(result.checkpoint.folder)
    assert "reward_model" in manifest["parents"]
    assert [part["kind"] for part in manifest["config"]["reward"]["parts"]] == ["model", "length"]


def test_a_judges_answers_are_in_the_loops_store(
    stages: Stages, copy_of: CopyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = copy_of(stages.unjudged, reward=JUDGE).loop
    by_length: Callable[[Asked], Any] = lambda asked: says(  # noqa: E731
        json.dumps({"rating": min(10, 1 + len(texts_in(asked)["response"]) // 20)})
    )
    with judging(by_length, monkeypatch) as server:
        first = train(loop).checkpoint
        asked = len(server.asked)
        assert train(loop).checkpoint == first
        assert len(server.asked) == asked
    assert len(loop.store.list("answers/given")) == asked
    assert list(check_loop(loop)) == []
    assert not any(KEY.encode() in content for content in contents(loop.store))
    loop.store.put(loop.store.list("answers/given")[0], b"{")
    (finding,) = check_loop(loop)
    assert "not valid JSON" in finding.sentence


def contents(store: Store) -> list[bytes]:
    """All that a loop keeps but for its models."""
    found = (store.get(key) for key in store.list() if not key.startswith("models/"))
    return [one.data for one in found if one is not None]
