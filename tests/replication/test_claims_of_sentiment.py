"""The loops that the claims of the sentiment task ask for fit together, and figures are put together as they should."""

from collections.abc import Iterator
from typing import get_args

import numpy as np
import pytest

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.replication.base import Size, Variant
from rlhf_dagster.replication.claims.figures import along, between, in_digits, in_percent, in_points, planted
from rlhf_dagster.replication.known import CLAIMS
from rlhf_dagster.replication.variants.forks import require_same_beginning
from rlhf_dagster.replication.variants.loops import VariantLoop


def all_variants() -> Iterator[Variant]:
    for claim in CLAIMS:
        for size in get_args(Size):
            yield from claim.variants(size)


def test_every_loop_can_be_run() -> None:
    for variant in all_variants():
        loop = VariantLoop(variant, 100)
        last = loop.steps[-1]
        assert last.assets[-1] == variant.until
        # What it takes over is made with the same settings.
        if variant.forks is not None:
            require_same_beginning(loop, VariantLoop(variant.forks, 100), variant.after)


def test_one_name_is_one_loop() -> None:
    loops = [VariantLoop(variant, 100) for variant in all_variants()]
    named = {loop.variant.name: loop.identity for loop in loops}
    assert all(named[loop.variant.name] == loop.identity for loop in loops)
    assert len(set(named.values())) == len(named)


def test_a_place_between_two_policies() -> None:
    values = np.array([[0.0, 1.0], [4.0, 5.0], [2.0, 3.0]])
    places = [1.0, 3.0, 2.0]
    assert between(places, values, 1.25).tolist() == [0.5, 1.5]
    assert between(places, values, 2.5).tolist() == [3.0, 4.0]
    assert between(places, values, 3.0).tolist() == [4.0, 5.0]
    # Nothing is drawn beyond the ends.
    assert between(places, values, 0.0).tolist() == [0.0, 1.0]
    assert between(places, values, 9.0).tolist() == [4.0, 5.0]


def test_rows_of_estimates_are_put_together_over_seeds() -> None:
    figures = [{"row": [planted(0.5), planted(0.7)]}, {"row": [planted(0.7), planted(0.9)]}]
    first, last = along(figures, "row")
    assert (first.value, last.value, last.n) == (pytest.approx(0.6), pytest.approx(0.8), 2)
    assert along(figures[:1], "row")[0] == Rate(0.5, 0.47, 0.53, 512)


def test_estimates_are_said_with_their_intervals() -> None:
    rate = Rate(0.861, 0.833, 0.887, 512)
    assert in_percent(rate) == "86% (83 to 89%)"
    assert in_percent(Rate(0.6, -0.004, 1.21, 5)) == "60% (0 to 100%)"
    assert in_digits(rate) == "0.86 (0.83 to 0.89)"
    assert in_points(Rate(-0.012, -0.031, 0.008, 512)) == "-1.2 points (-3.1 to 0.8)"
