import gc

import pytest

from rlhf_dagster.data.judged.garbage import seldom_collected


def test_cycles_are_looked_for_seldom_and_as_before_afterwards() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="over"), seldom_collected():
        assert gc.get_threshold() == (100 * before[0], *before[1:])
        assert gc.isenabled()
        raise ValueError("over")
    assert gc.get_threshold() == before
