"""Kinds of label: every list of them names the same ones, and an answer says what was written into it."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf_dagster.config.labeling import LabelingSettings
from rlhf_dagster.labeling.label_studio.kinds.known import PAGE_OF_KIND
from rlhf_dagster.records.kinds import ALL_KINDS, ORDERED_KINDS, RANKED_KINDS, RankedName, problem_with
from rlhf_dagster.records.outcome import best, ranks_from_ratings
from rlhf_dagster.training.reward.terms import LEARNED

RATED = {"overall": [5, 3], "helpful": [6, 2]}
orders = st.lists(st.integers(1, 7), min_size=2, max_size=9).map(ranks_from_ratings)


def test_every_list_of_kinds_has_them_all() -> None:
    assert set(PAGE_OF_KIND) == set(ALL_KINDS)
    assert set(LEARNED) == set(RANKED_KINDS) == set(get_args(RankedName))
    assert set(RANKED_KINDS) < set(ALL_KINDS)
    assert set(ORDERED_KINDS) < set(RANKED_KINDS)


@pytest.mark.parametrize("kind", RANKED_KINDS)
def test_settings_can_ask_for_every_kind_that_has_ranks(kind: str) -> None:
    asked = LabelingSettings(kind=kind, responses_per_prompt=5)
    assert asked.responses == (RANKED_KINDS[kind].responses or 5)
    assert RANKED_KINDS[kind].decides in " ".join((LabelingSettings.model_fields["kind"].description or "").split())


@pytest.mark.parametrize("kind", [kind for kind in RANKED_KINDS if kind != "rating"])
@settings(deadline=None)
@given(order=orders)
def test_what_an_order_amounts_to_is_an_outcome_that_can_be_written_and_read(kind: str, order: list[int]) -> None:
    known = RANKED_KINDS[kind]
    order = ranks_from_ratings([-rank for rank in order[: known.responses]])
    ranks = known.of_order(order)
    if ranks is None:
        assert len(set(order)) == 1
        return
    assert problem_with(ranks, kind) == ""
    assert best(ranks) == best(order)
    assert known.read(known.write(ranks), len(ranks)).ranks == ranks


def test_a_rating_is_written_as_ratings_and_read_with_the_ranks_of_the_axis_that_decides() -> None:
    rating = RANKED_KINDS["rating"]
    answer = rating.read(rating.write([1, 2], RATED), 2, ("helpful",))
    assert (answer.axes, answer.ranks) == (RATED, [1, 2])
    with pytest.raises(ValueError, match="not with ranks alone"):
        rating.write([1, 2])
