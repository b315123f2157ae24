"""The registry of arms: what the config may ask for, and that every row has what it names."""

import pytest

from rlhf_dagster.assets import policy as assets
from rlhf_dagster.compute.trainings import TRAININGS
from rlhf_dagster.config.arms import ARMS, BEST_OF_N, CANDIDATE, DPO, TRAINED_BESIDE, arm_of
from rlhf_dagster.config.base import Settings
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError


def test_roles_kinds_and_assets_are_each_an_arm_s_own() -> None:
    for name in ("role", "kind", "asset"):
        values = [getattr(arm, name) for arm in ARMS if getattr(arm, name)]
        assert len(set(values)) == len(values)


def test_exactly_one_arm_may_be_promoted() -> None:
    assert [arm for arm in ARMS if arm.promotable] == [CANDIDATE]


def test_an_arm_that_trains_has_settings_an_asset_and_a_training() -> None:
    for name, arm in TRAINED_BESIDE.items():
        assert isinstance(getattr(LoopConfig(), name), Settings)
        assert getattr(assets, arm.asset).key.path[-1] == arm.asset
        assert arm_of(arm.kind) is arm
    assert {CANDIDATE.kind, DPO.kind} <= TRAININGS.keys()
    assert arm_of("sft") is None
    assert arm_of("") is None


def test_a_loop_has_the_arms_that_it_asks_for() -> None:
    assert LoopConfig().arms_beside() == []
    asked = LoopConfig(arms=["dpo"], evaluation={"best_of_n": 4})
    assert asked.arms_beside() == [DPO, BEST_OF_N]


@pytest.mark.parametrize(
    ("arms", "sentence"),
    [
        (["dpp"], "`arms`: there is no arm `dpp`; choose from: dpo"),
        (["policy"], "there is no arm `policy`"),
        (["best_of_n"], "there is no arm `best_of_n`"),
        (["dpo", "dpo"], "`dpo` is named twice"),
        ("dpo", "`arms`: input should be a valid list"),
    ],
)
def test_an_arm_that_is_none_is_refused_in_a_sentence(arms: object, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        LoopConfig.parse({"arms": arms}, "loop.yaml")
