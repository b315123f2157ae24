"""Outcomes: what a judgment says about the responses compared.

An outcome is a list of ranks, one for each response: 1 is best, equal ranks tie, and no rank is left out (dense
ranking). It exists in two orders. *Display* order is what the annotator saw; *canonical* order is that of the sorted
completion ids. ``display_order[position]`` is the canonical index of the response shown at ``position``.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

OVERALL = "overall"
"""The axis that decides the ranks of a rating where the settings do not say."""


def ranks_from_best(best: Iterable[int], k: int) -> list[int]:
    """Rank 1 for the ``best`` of ``k`` responses and 2 for the others; raises ValueError for none or an unknown one."""
    chosen = set(best)
    if not chosen or not chosen <= set(range(k)):
        raise ValueError(f"the best responses must be some of 0 to {k - 1}")
    return [1 if index in chosen else 2 for index in range(k)]


def ranks_from_ratings(ratings: Sequence[int]) -> list[int]:
    """Ranks by rating: the highest has rank 1, equal ratings tie, and no rank is left out."""
    order = sorted(set(ratings), reverse=True)
    return [order.index(rating) + 1 for rating in ratings]


def deciding_axis(ratings: Mapping[str, Any], axes: Sequence[str]) -> str:
    """The axis of ``ratings`` that decides the ranks.

    It is the first of ``axes`` that was rated, otherwise OVERALL if that was rated, otherwise the first axis by name.
    """
    return next((axis for axis in (*axes, OVERALL) if axis in ratings), min(ratings))


def best(ranks: Sequence[int]) -> list[int]:
    """Indices of the responses with rank 1."""
    return [index for index, rank in enumerate(ranks) if rank == 1]


def target(ranks: Sequence[int]) -> list[float]:
    """Probability that each response is the best: equal over the responses with rank 1; sums to 1.

    With a single best of K this is the label of Ziegler et al. (2019), section 2.1; a tie between two responses gives
    each one half.
    """
    top = set(best(ranks))
    return [1 / len(top) if index in top else 0.0 for index in range(len(ranks))]


def nested_choices(ranks: Sequence[int]) -> list[tuple[list[int], list[float]]]:
    """The choices that ``ranks`` are made of: the best of all, the best of the rest, and so on.

    Each is a list of indices and the :func:`target` over these. With softmax choices the product of their probabilities
    is the Plackett-Luce model of an order (Luce 1959, *Individual Choice Behavior*; Plackett 1975, *The Analysis of
    Permutations*): for scores s in the order from best to worst, ``log P = sum_j (s_j - log sum_{i >= j} exp s_i)``.
    So the cross-entropies of an order without ties add up to -log P.

    Responses that tie are removed together and share the target, as in a tied pair; a last choice among responses that
    all tie says that they are equally good. Where a single response is left there is nothing to choose.
    """
    choices = []
    for rank in sorted(set(ranks)):
        members = [index for index, other in enumerate(ranks) if other >= rank]
        if len(members) > 1:
            choices.append((members, target([ranks[index] - rank + 1 for index in members])))
    return choices


def to_canonical(shown: Sequence[T], display_order: Sequence[int]) -> list[T]:
    """Values in display order, put into canonical order."""
    position_of = {index: position for position, index in enumerate(display_order)}
    return [shown[position_of[index]] for index in range(len(display_order))]


def to_display(values: Sequence[T], display_order: Sequence[int]) -> list[T]:
    """Values in canonical order, put into display order."""
    return [values[index] for index in display_order]
