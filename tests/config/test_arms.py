"""The registry of arms: what the config may ask for, and that every row has what it names."""

import re
from typing import Any, get_args

import pytest

from rlhf_dagster.assets.policy import ARM_ASSETS
from rlhf_dagster.config.arm_settings.release import BEST, ReleaseSettings
from rlhf_dagster.config.arms import ARMS, BEST_OF_N, DPO, PPO, TRAINED, arm_of
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.errors import UserError


def test_names_kinds_and_assets_are_each_an_arm_s_own() -> None:
    for name in ("name", "title", "kind", "asset"):
        values = [getattr(arm, name) for arm in ARMS if getattr(arm, name)]
        assert len(set(values)) == len(values)
    assert not {arm.name for arm in ARMS} & {"policy", "sft", "behaviour"}, "roles of every evaluation"


def test_every_arm_that_trains_may_be_promoted_and_no_other() -> None:
    assert {*get_args(ReleaseSettings.model_fields["arm"].annotation)} == {BEST, *TRAINED}
    assert BEST_OF_N.name not in TRAINED


def test_an_arm_that_trains_has_settings_and_an_asset() -> None:
    for name, arm in TRAINED.items():
        assert isinstance(getattr(LoopConfig(), name), Settings)
        assert ARM_ASSETS[arm].name == arm.asset
        assert arm_of(arm.kind) is arm
    assert arm_of("sft") is None
    assert arm_of("") is None


def test_a_loop_has_the_arms_that_it_asks_for() -> None:
    assert LoopConfig().trained_arms() == LoopConfig().promotable_arms() == [PPO]
    assert LoopConfig().arms_beside(PPO) == []
    asked = LoopConfig(arms=["dpo"], evaluation={"best_of_n": 4})
    assert asked.arms_beside(PPO) == [DPO, BEST_OF_N]
    assert asked.promotable_arms() == [PPO]


def test_another_arm_is_released_and_ppo_trained_only_if_it_is_named() -> None:
    alone, beside = LoopConfig(release={"arm": "dpo"}), LoopConfig(arms=["ppo"], release={"arm": "dpo"})
    assert (alone.trained_arms(), alone.promotable_arms(), alone.arms_beside(DPO)) == ([DPO], [DPO], [])
    assert (beside.trained_arms(), beside.promotable_arms(), beside.arms_beside(DPO)) == ([PPO, DPO], [DPO], [PPO])
    best = LoopConfig(arms=["dpo"], release={"arm": "best"})
    assert best.trained_arms() == best.promotable_arms() == [PPO, DPO]


def test_the_settings_of_a_loop_of_before_are_recorded_as_they_were() -> None:
    assert "release" not in LoopConfig().recorded()
    assert "release" in LoopConfig(release={"arm": "dpo"}).recorded()


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (["dpp"], "`arms`: there is no arm `dpp`; choose from: ppo, "),
        (["policy"], "there is no arm `policy`"),
        (["best_of_n"], "there is no arm `best_of_n`"),
        (["dpo", "dpo"], "`dpo` is named twice"),
        ("dpo", "`arms`: input should be a valid list"),
    ],
)
def test_an_arm_that_is_none_is_refused_in_a_sentence(arms: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LoopConfig.parse({"arms": arms}, "loop.yaml")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"release": {"arm": "best_of_n"}}, "`release.arm`: input should be 'best', 'ppo'"),
        ({"release": {"arm": "best"}}, "`release.arm: best` chooses among the policies of several arms; name others"),
        ({"release": {"arm": "best"}, "arms": ["ppo"]}, "chooses among the policies of several arms"),
        ({"release": {"arm": "dpo", "prompts": 8}}, "`release.prompts` is for the choice of an arm"),
    ],
)
def test_a_release_that_says_nothing_is_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LoopConfig.parse(settings, "loop.yaml")


def test_an_arm_s_settings_are_those_of_the_training_it_varies_where_they_are_not_set() -> None:
    given = {"ppo": {"updates": 7, "value": "separate", "lora": {"rank": 2}}, "rloo": {"kl_coef": 0.3}}
    config = LoopConfig.parse({"arms": ["rloo", "grpo"], **given}, "loop.yaml")
    for settings in (config.rloo, config.grpo):
        assert (settings.updates, settings.lora.rank, settings.samples_per_prompt) == (7, 2, 4)
        assert settings.value == "shared"
    assert (config.rloo.kl_coef, config.grpo.kl_coef) == (0.3, config.ppo.kl_coef)
    assert (config.rloo.as_ppo().advantages, config.grpo.as_ppo().advantages) == ("rloo", "group")
    assert LoopConfig.parse(given, "loop.yaml").rloo.updates != 7, "not asked for"
    sft = {"sft": {"batch_size": 8, "epochs": 9, "chat": True, "max_tokens": 99}}
    tuned = LoopConfig.parse({"release": {"arm": "best_of_n_sft"}, **sft}, "loop.yaml")
    trained = tuned.best_of_n_sft.as_sft(tuned.sft)
    assert (trained.batch_size, trained.epochs, trained.chat, trained.max_tokens) == (8, 2, True, 99)


@pytest.mark.parametrize("preset", [*PRESETS])
def test_every_preset_has_settings_for_every_arm(preset: str) -> None:
    config = LoopConfig.parse({"preset": preset, "arms": [*TRAINED], "release": {"arm": "best"}}, "loop.yaml")
    assert config.rloo.learning_rate == config.grpo.learning_rate == config.ppo.learning_rate
    assert config.best_of_n_sft.learning_rate == config.sft.learning_rate


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"rloo": {"advantages": "gae"}}, "`rloo`: the arm `rloo` has `advantages: rloo`; others are for `ppo.adv"),
        (
            {"rloo": {"samples_per_prompt": 1}},
            "`rloo.advantages: rloo` compares responses; set rloo.samples_per_prompt",
        ),
        ({"grpo": {"value": "separate"}}, "`grpo.advantages: group` has no values and no use for `value: separate`"),
        (
            {"ppo": {"batch_size": 10}, "arms": ["rloo"]},
            "rloo.batch_size 10 is not a multiple of rloo.samples_per_prompt 4",
        ),
        ({"rloo": ["updates"], "arms": ["rloo"]}, "`rloo`: input should be a valid dictionary"),
        ({"best_of_n_sft": {"n": 1}}, "`best_of_n_sft.n`: input should be greater than or equal to 2"),
        (
            {"arms": ["best_of_n_sft"], "reward": {"kind": "length", "longest": 9}},
            "the arm `best_of_n_sft` chooses by the reward model, which `reward` leaves out",
        ),
    ],
)
def test_settings_of_an_arm_that_cannot_be_are_refused_in_a_sentence(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=re.escape(sentence)):
        LoopConfig.parse(settings, "loop.yaml")
