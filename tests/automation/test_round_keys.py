"""Round keys that people add in the UI."""

import dagster as dg
import pytest

from rlhf_dagster.assets.rounds import open_next_round, rounds
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import require_round_key, round_key


def test_keys_of_rounds_are_accepted() -> None:
    for number in (0, 1, 42, 9999):
        require_round_key(round_key(number))


@pytest.mark.parametrize(
    "key", ["round-1", "Round-0001", "2026-11-21", "round-00001", "round-0001 ", "round-10000", "round-99999"]
)
def test_other_partitions_are_no_rounds(key: str) -> None:
    with pytest.raises(UserError, match="rounds are called round-0001, round-0002"):
        require_round_key(key)


def test_next_round_passes_over_partitions_that_are_none(tmp_path) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(rounds.name), ["round-0003", "zzz"])
        assert open_next_round(instance, LoopFolder(LoopConfig(), tmp_path)) == "round-0004"
