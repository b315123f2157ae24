import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf_dagster.labeling.outcome import best, problem_with, ranks_from_best, target, to_canonical, to_display

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
        ([1, 2], "rating", "no kind"),
    ],
)
def test_what_is_no_outcome(ranks: list[int], kind: str, part: str) -> None:
    assert part in problem_with(ranks, kind)
