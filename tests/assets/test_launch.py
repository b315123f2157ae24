"""Settings of one run, from the launchpad."""

import pytest

from rlhf_dagster.assets.launch import for_this_run, launch_config
from rlhf_dagster.config.presets import PRESETS
from rlhf_dagster.config.training import PpoSettings
from rlhf_dagster.errors import UserError

QLORA = PRESETS["qlora"]["ppo"]
Launched = launch_config(PpoSettings)


def test_nothing_set_changes_nothing() -> None:
    assert for_this_run(QLORA, Launched()) == QLORA


def test_of_settings_within_settings_only_what_is_set_changes() -> None:
    launched = Launched(updates=7, schedule={"warmup": 3}, lora={"rank": 64})
    expected = QLORA.changed(updates=7, schedule=QLORA.schedule.changed(warmup=3), lora=QLORA.lora.changed(rank=64))
    assert for_this_run(QLORA, launched) == expected
    assert expected.lora.base_bits == 4


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(UserError, match=r"run config: ppo\.schedule\.warmup is 400 steps"):
        for_this_run(QLORA, Launched(schedule={"warmup": 400}))
