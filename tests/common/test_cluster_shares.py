import numpy as np
import pandas as pd
import pytest

from rlhf_dagster.common.cluster_shares import cluster_sums, share_from_sums
from rlhf_dagster.common.intervals import share_with_interval


def share(so: list[int], n: list[int]) -> dict | None:
    return share_from_sums(cluster_sums(pd.Series(so), pd.Series(n)).sum().to_dict())


def test_clusters_of_one_are_independent_observations() -> None:
    assert share([1, 0, 1, 1], [1, 1, 1, 1]) == share_with_interval(3, 4)
    assert share([1, 0, 0], [1, 1, 0]) == share_with_interval(1, 2)


def test_no_observation_has_no_share() -> None:
    assert share([0, 0], [0, 0]) is None
    assert share([], []) is None


@pytest.mark.parametrize(("so", "n"), [([3, 3, 0], [3, 3, 3]), ([10, 10], [10, 10]), ([0, 0], [3, 3]), ([2], [3])])
def test_the_interval_is_never_narrower_than_that_of_independent_observations(so: list[int], n: list[int]) -> None:
    found, independent = share(so, n), share_with_interval(sum(so), sum(n))
    assert found["value"] == independent["value"]
    assert found["n"] == independent["n"] == sum(n)
    assert found["low"] <= independent["low"]
    assert found["high"] >= independent["high"]


def test_where_all_of_a_cluster_say_the_same_each_cluster_is_one_observation() -> None:
    # The linearised variance has C / (C - 1) of it.
    found, clusters = share([5] * 60 + [0] * 40, [5] * 100), share_with_interval(60, 100)
    assert found["low"] == pytest.approx(clusters["low"], abs=2e-3)
    assert found["high"] == pytest.approx(clusters["high"], abs=2e-3)


def test_coverage_over_clusters_of_many_sizes() -> None:
    generator, hits = np.random.default_rng(0), 0
    for _ in range(400):
        n = generator.choice([1, 3, 6, 15], 80)
        so = generator.binomial(n, generator.beta(3, 1.5, 80))
        found = share(so.tolist(), n.tolist())
        hits += found["low"] <= 3 / 4.5 <= found["high"]
    assert hits / 400 > 0.92
