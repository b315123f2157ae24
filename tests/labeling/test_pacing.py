from collections import Counter
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.labeling.pacing import AT_WORK, come_and_go, gap

Item = tuple[str, int]


def who(item: Item) -> str:
    return item[0]


@given(st.lists(st.sampled_from("abcdefg")), st.integers(0, 5))
def test_everything_is_done_once_each_persons_own_in_order(names: list[str], seed: int) -> None:
    work = [(name, number) for number, name in enumerate(names)]
    order = come_and_go(work, who, seed)
    assert Counter(order) == Counter(work)
    for name in set(names):
        assert [item for item in order if who(item) == name] == [item for item in work if who(item) == name]
    assert come_and_go(work, who, seed) == order


def test_few_are_at_work_at_a_time_and_all_come() -> None:
    work = [(name, number) for number in range(50) for name in "abcdefghij"]
    order = [who(item) for item in come_and_go(work, who, seed=0)]
    # Somebody leaves after eight labels on average, so that ten labels in a row are by five people at most, or so.
    windows = [len(set(order[start : start + 10])) for start in range(len(order) - 10)]
    assert sum(windows) / len(windows) < AT_WORK + 2
    assert len(set(order[:60])) > AT_WORK
    assert max(len(list(run)) for _, run in groupby(order[:300])) < 20
    assert [who(item) for item in come_and_go(work, who, seed=1)] != order


def test_gaps_are_exponential_and_fixed_by_their_key() -> None:
    gaps = sorted(gap(30, 0, number) for number in range(4000))
    assert sum(gaps) / len(gaps) == pytest.approx(2.0, rel=0.05)
    # An exponential distribution has its median at ln 2 of the mean, and a share of exp(-3) above three means.
    assert gaps[2000] == pytest.approx(2.0 * 0.6931, rel=0.05)
    assert sum(value > 6.0 for value in gaps) / len(gaps) == pytest.approx(0.0498, abs=0.012)
    assert gaps[0] > 0
    assert gap(30, 0, 7) == gap(30, 0, 7) == 2 * gap(60, 0, 7)
    assert gap(30, 1, 7) != gap(30, 0, 7)
