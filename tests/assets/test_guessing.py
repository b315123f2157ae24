"""No policy is trained on a reward model that is not known to be better than guessing."""

from typing import Any

import dagster as dg
import pytest
from loops import ROUND, run_missing

import rlhf_dagster.assets.reward as reward_assets
from rlhf_dagster.automation.jobs import HALF_MODELS, LEARN
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.candidate import policy_assets

LEARN_POLICY = [HALF_MODELS, *policy_assets(LoopConfig())]
NO_CONSENT = {"accept_chance": False}
CHECK = dg.AssetCheckKey(dg.AssetKey("reward_model_accuracy"), "better_than_guessing")
SENTENCE = "The reward model is not known to be better than guessing. It picks what people picked on "


@pytest.fixture
def learned(stages, copy_of, monkeypatch) -> LoopRunner:
    """A loop whose first round has a reward model that guesses and is not measured yet."""
    return copy_of(stages.unjudged, reward_model=NO_CONSENT)


def rate(value: float, low: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": 1.0, "n": 100}


def measured(monkeypatch: pytest.MonkeyPatch, low: float) -> None:
    """Let the reward model's accuracy have this lower end, of pairs."""
    unseen = {"accuracy": rate(0.6, low), "length_baseline": rate(0.5, 0.4), "brevity_baseline": rate(0.5, 0.4)}
    found = reward_assets.measure_reward_model

    def measure(*given: Any) -> dict[str, Any]:
        figures = found(*given)
        return figures | {"unseen": figures["unseen"] | unseen | {"chance": 0.5}}

    monkeypatch.setattr(reward_assets, "measure_reward_model", measure)


def made(runner: LoopRunner, asset: str) -> int:
    found = runner.instance.fetch_materializations(dg.AssetRecordsFilter(dg.AssetKey(asset)), limit=100)
    return len(found.records)


def test_ppo_does_not_start_on_a_reward_model_that_guesses(learned, monkeypatch) -> None:
    measured(monkeypatch, low=0.5)
    before = {asset: made(learned, asset) for asset in LEARN_POLICY}
    outcome = learned.run("train_round", ROUND, [*LEARN[-1:], *LEARN_POLICY])
    assert (outcome.success, outcome.stopped_by_gate, outcome.failed_asset) == (False, False, LEARN[-1])
    assert outcome.failure.startswith(SENTENCE)
    assert outcome.failure.endswith("set `reward_model.accept_chance: true` to train a policy on it all the same.")
    assert {asset: made(learned, asset) for asset in LEARN_POLICY} == before
    # Launched alone, the policy asks by itself.
    alone = learned.run("train_round", ROUND, ["ppo_policy"])
    assert (alone.success, alone.failed_asset) == (False, "ppo_policy")
    assert alone.failure == outcome.failure


def test_it_starts_where_the_lower_end_is_above_chance(learned, monkeypatch) -> None:
    measured(monkeypatch, low=0.51)
    assert learned.run("train_round", ROUND, [*LEARN[-1:], "ppo_policy"]).success
    assert learned.instance.event_log_storage.get_latest_asset_check_execution_by_key([CHECK])


def test_people_can_accept_it_and_the_reward_model_stays_the_same(stages, copy_of, monkeypatch) -> None:
    runner = copy_of(stages.unjudged)
    assert runner.loop.config.reward_model.accept_chance
    kept = runner.loop.json("reward_model", ROUND)
    measured(monkeypatch, low=0.5)
    assert runner.run("train_round", ROUND, ["reward_model_accuracy", "ppo_policy"]).success
    assert run_missing(runner, "train_round", ROUND, until="reward_model").success
    assert runner.loop.json("reward_model", ROUND) == kept
    settings = runner.loop.config.reward_model
    assert settings.changed(accept_chance=False).recorded() == settings.recorded()
    assert repr(settings.changed(accept_chance=False)) == repr(settings)


def test_so_few_labels_that_nothing_could_be_told_are_refused_before_a_reward_model_is_trained(stages, copy_of) -> None:
    nobody = {"comparisons_per_round": 40, "held_out_annotators": 0.0, "validation": 0.0}
    runner = copy_of(stages.unjudged, reward_model=NO_CONSENT, labeling=nobody)
    before = made(runner, "reward_model")
    outcome = runner.run("train_round", ROUND, ["preference_dataset", "reward_model"])
    assert (outcome.success, outcome.failed_asset) == (False, "reward_model")
    assert outcome.failure == (
        "Not even a reward model that is always right could be told from guessing, and PPO would not start on it: no "
        "label that names a best response is kept from training. Collect more labels, raise `labeling.validation` or "
        "`labeling.held_out_annotators`, or set `reward_model.accept_chance: true`."
    )
    assert made(runner, "reward_model") == before
