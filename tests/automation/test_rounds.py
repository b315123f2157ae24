import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.assets.rounds import open_import_round, open_next_round, open_rounds
from rlhf_dagster.config.loop import LoopConfig
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.records.round_keys import IMPORT_ROUND, round_key


@given(st.integers(0, 9998))
def test_keys_sort_in_the_order_of_rounds(number) -> None:
    assert round_key(number) < round_key(number + 1)


def test_rounds_open_one_after_the_other_and_imports_come_first(tmp_path) -> None:
    loop = LoopFolder(LoopConfig(), tmp_path)
    with dg.DagsterInstance.local_temp() as instance:
        assert open_rounds(instance, loop) == []
        assert [open_next_round(instance, loop) for _ in range(2)] == ["round-0001", "round-0002"]
        assert open_import_round(instance, loop) == IMPORT_ROUND == round_key(0)
        assert open_import_round(instance, loop) == IMPORT_ROUND
        assert open_rounds(instance, loop) == ["round-0000", "round-0001", "round-0002"]
        assert open_next_round(instance, loop) == "round-0003"


def test_the_first_round_after_an_import_is_round_one(tmp_path) -> None:
    loop = LoopFolder(LoopConfig(), tmp_path)
    with dg.DagsterInstance.local_temp() as instance:
        open_import_round(instance, loop)
        assert open_next_round(instance, loop) == "round-0001"
