import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.records.kinds import problem_with
from rlhf_dagster.records.outcome import (
    best,
    nested_choices,
    ranks_from_best,
    ranks_from_ratings,
    target,
    to_canonical,
    to_display,
)

orders = st.integers(2, 9).flatmap(lambda k: st.permutations(range(k)))


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([1, 2], [1.0, 0.0]),
        ([2, 1], [0.0, 1.0]),
        ([1, 1], [0.5, 0.5]),
        ([2, 1, 2, 1], [0.0, 0.5, 0.0, 0.5]),
        ([3, 1, 2], [0.0, 1.0, 0.0]),
    ],
)
def test_target_is_shared_by_the_best(ranks: list[int], expected: list[float]) -> None:
    assert target(ranks) == expected


def test_order_shown_and_canonical_order_by_hand() -> None:
    # Completion 2 is shown first, then 0, then 1; the annotator puts the second one shown first.
    assert to_canonical([2, 1, 3], [2, 0, 1]) == [1, 3, 2]
    assert to_display([1, 3, 2], [2, 0, 1]) == [2, 1, 3]


@given(orders, st.data())
def test_the_two_orders_are_inverse(order: list[int], data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(), min_size=len(order), max_size=len(order)))
    assert to_display(to_canonical(values, order), order) == values
    assert to_canonical(to_display(values, order), order) == values


@given(st.integers(2, 9).flatmap(lambda k: st.tuples(st.just(k), st.sets(st.integers(0, k - 1), min_size=1))))
def test_ranks_name_the_best_and_are_valid(given_best: tuple[int, set[int]]) -> None:
    k, chosen = given_best
    # All equal is a tie of all, so that no rank is left out.
    ranks = ranks_from_best(chosen, k)
    assert set(best(ranks)) == chosen
    assert problem_with(ranks, "best_of_k") == ""
    assert sum(target(ranks)) == pytest.approx(1)


@pytest.mark.parametrize("chosen", [[], [4], [-1]])
def test_best_must_be_there(chosen: list[int]) -> None:
    with pytest.raises(ValueError, match="some of 0 to 3"):
        ranks_from_best(chosen, 4)


@pytest.mark.parametrize(
    ("ranks", "kind", "part"),
    [
        ([2, 2], "pair", "start at 1"),
        ([1, 3, 3], "best_of_k", "leave none out"),
        ([0, 1], "pair", "start at 1"),
        ([1, 2, 2], "pair", "2 responses"),
        ([1, 2, 3], "best_of_k", "ranks 1 and 2"),
        ([1], "best_of_k", "at least 2"),
        ([], "best_of_k", "at least 2"),
        ([True, 2], "pair", "whole numbers"),
        ([1, 2], "demonstration", "no kind"),
        ([1], "ranking", "at least 2"),
        ([1, 3], "ranking", "leave none out"),
        ([2, 3], "rating", "start at 1"),
    ],
)
def test_what_is_no_outcome(ranks: list[int], kind: str, part: str) -> None:
    assert part in problem_with(ranks, kind)


@given(st.lists(st.integers(1, 7), min_size=2, max_size=9))
def test_ratings_order_as_their_ranks_do(ratings: list[int]) -> None:
    ranks = ranks_from_ratings(ratings)
    assert problem_with(ranks, "rating") == ""
    assert problem_with(ranks, "ranking") == ""
    for first, first_rank in zip(ratings, ranks, strict=True):
        for second, second_rank in zip(ratings, ranks, strict=True):
            assert (first > second) == (first_rank < second_rank)


@pytest.mark.parametrize(
    ("ranks", "choices"),
    [
        ([1, 2], [([0, 1], [1, 0])]),
        ([3, 1, 2], [([0, 1, 2], [0, 1, 0]), ([0, 2], [0, 1])]),
        ([2, 1, 2, 1], [([0, 1, 2, 3], [0, 0.5, 0, 0.5]), ([0, 2], [0.5, 0.5])]),
        ([2, 1, 1], [([0, 1, 2], [0, 0.5, 0.5])]),
        ([1, 1], [([0, 1], [0.5, 0.5])]),
    ],
)
def test_the_choices_of_a_ranking_by_hand(ranks: list[int], choices: list) -> None:
    assert nested_choices(ranks) == choices


@given(st.lists(st.integers(1, 7), min_size=2, max_size=9).map(ranks_from_ratings))
def test_the_first_choice_is_that_of_the_best(ranks: list[int]) -> None:
    first, *later = nested_choices(ranks)
    assert first == (list(range(len(ranks))), target(ranks))
    for members, shares in later:
        assert len(members) >= 2
        assert sum(shares) == pytest.approx(1)
