"""The setting `reward`: what is refused, with which path, and what is on record."""

from typing import Any

import pytest

from rlhf_dagster.config.judging.reward import EnsembleReward, ModelReward, terms_of, uses_reward_model
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError

SUM = {"kind": "ensemble", "parts": [{"kind": "model"}, {"kind": "length", "longest": 30, "weight": 0.5}]}
KINDS = "needs a mapping whose `kind` is one of model, function, length, format, classifier, http"


def config(reward: Any) -> LoopConfig:
    return LoopConfig.parse({"reward": reward}, "loop.yaml")


@pytest.mark.parametrize(
    ("reward", "sentence"),
    [
        ("model", f"`reward`: {KINDS}, ensemble (found 'model')."),
        ({}, f"`reward`: {KINDS}, ensemble."),
        ({"kind": "modell"}, f"`reward`: {KINDS}, ensemble."),
        ({"kind": "http"}, "`reward.model` is missing; please set it."),
        ({"kind": "http", "model": "m", "servce": {}}, "`reward.servce` is not a setting; did you mean `service`?"),
        (
            {"kind": "http", "model": "m", "service": {"max_request": 1}},
            "`reward.service.max_request` is not a setting; did you mean `max_requests`?",
        ),
        (
            {"kind": "http", "model": "m", "service": {"key_variable": "sk-12"}},
            "`reward.service.key_variable`: string should match pattern '^[A-Z][A-Z0-9_]*$' (found 'sk-12').",
        ),
        ({"kind": "http", "model": "m", "lowest": 10}, "`reward`: `highest` 10 is not above `lowest` 10."),
        (
            {"kind": "http", "model": "m", "parameters": {"stream": True}},
            "`reward.parameters`: `stream` is set by the loop; leave it out.",
        ),
        ({"kind": "model", "weight": True}, "`reward.weight`: input should be a valid number (found True)."),
        (
            {"kind": "model", "weight": 0},
            "`reward.weight`: a weight of 0 rewards nothing; leave this reward out",
        ),
        ({"kind": "function", "function": "praise"}, "`reward.function`: string should match pattern '^.+:.+$'"),
        ({"kind": "length"}, "`reward`: a length needs `longest`, `shortest` or both."),
        ({"kind": "format", "pattern": "("}, "`reward.pattern`: is no regular expression: missing )"),
        ({"kind": "ensemble", "parts": []}, "`reward.parts`: list should have at least 1 item"),
        ({"kind": "ensemble", "parts": [SUM]}, f"`reward.parts.0`: {KINDS}."),
        ({"kind": "ensemble", "parts": [{"kind": "model"}, {"kind": "format"}]}, "`reward.parts.1.pattern` is missing"),
        (
            {"kind": "ensemble", "parts": [{"kind": "model"}] * 2},
            "`reward`: the reward model is named twice",
        ),
    ],
)
def test_what_is_refused(reward: Any, sentence: str) -> None:
    with pytest.raises(UserError) as error:
        config(reward)
    assert str(error.value).startswith(f"loop.yaml: {sentence}")


def test_the_default_leaves_no_trace_in_records_of_version_0_1() -> None:
    assert config({"kind": "model"}) == LoopConfig()
    assert "reward" not in LoopConfig().recorded()
    assert "reward=" not in repr(LoopConfig())


def test_what_is_set_is_on_record_as_plain_values() -> None:
    found = config(SUM)
    assert found.recorded()["reward"]["parts"][1] == {
        **{"kind": "length", "unit": "words", "shortest": 0, "longest": 30, "margin": 20, "weight": 0.5}
    }
    assert LoopConfig.model_validate(found.model_dump()) == found


def test_what_is_added_up() -> None:
    found = config(SUM).reward
    assert isinstance(found, EnsembleReward)
    assert terms_of(found) == found.parts
    assert terms_of(ModelReward()) == [ModelReward()]
    assert uses_reward_model(found)
    assert not uses_reward_model(config({"kind": "length", "longest": 1}).reward)
