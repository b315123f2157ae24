"""What Label Studio's Ranker holds, as ranks.

The page has a bucket for each rank, ``rank_1`` the best; responses in one bucket tie, an empty bucket counts for
nothing, and ``_`` holds what has no rank yet. Without buckets there is one list, ``rank``, best first. The items are
``r-a``, ``r-b`` and so on by display position: names that look like numbers would be sorted by the browser.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf_dagster.records.answers import UnreadableError, named

LETTERS = "abcdefghi"
"""Responses by display position."""
UNRANKED = "_"
ORDER = "rank"
BUCKETS = [f"rank_{rank}" for rank in range(1, len(LETTERS) + 1)]


def items(k: int) -> list[str]:
    """The ids of ``k`` responses, in display order."""
    return [f"r-{letter}" for letter in LETTERS[:k]]


def ranks_in(value: Any, k: int) -> tuple[list[int] | None, bool]:
    """The ranks of ``k`` responses in display order, and whether somebody must have moved them.

    The ranks are None where a response has none yet. A list without buckets is submitted in display order also by
    somebody who never touched it. Raises :class:`~rlhf_dagster.records.answers.UnreadableError`.
    """
    if value is None:
        return None, False
    if not isinstance(value, Mapping):
        raise UnreadableError(f"`rank` is {named(value)}, not a ranker's object.")
    tiers = _tiers(value)
    ids = [item for tier in (*tiers, value.get(UNRANKED, [])) for item in tier]
    _check_items(ids, k)
    if value.get(UNRANKED):
        return None, False
    rank_of = {item: rank for rank, tier in enumerate(tiers, start=1) for item in tier}
    return [rank_of[item] for item in items(k)], ORDER not in value or ids != items(k)


def ranker_of(ranks: Sequence[int] | None, k: int) -> dict[str, list[str]]:
    """The buckets that say ``ranks``; None: nothing has been ranked."""
    buckets: dict[str, list[str]] = {UNRANKED: [] if ranks else items(k)} | {name: [] for name in BUCKETS[:k]}
    for item, rank in zip(items(k), ranks or [], strict=False):
        buckets[BUCKETS[rank - 1]].append(item)
    return buckets


def _tiers(value: Mapping[str, Any]) -> list[list[Any]]:
    """The items of each rank, best first."""
    unknown = sorted(str(name)[:40] for name in set(value) - {UNRANKED, ORDER, *BUCKETS})
    if unknown:
        raise UnreadableError(f"`rank` has no bucket {unknown[0]!r}.")
    for name, held in value.items():
        if not isinstance(held, list) or not all(isinstance(item, str) for item in held):
            raise UnreadableError(f"`{name}` in `rank` is not a list of items.")
    if ORDER not in value:
        return [value[name] for name in BUCKETS if value.get(name)]
    if set(value) != {ORDER}:
        raise UnreadableError("`rank` holds buckets and a list without buckets.")
    return [[item] for item in value[ORDER]]


def _check_items(ids: Sequence[str], k: int) -> None:
    expected = items(k)
    for item in ids:
        if item not in expected:
            raise UnreadableError(f"`rank` holds the item {item[:40]!r}, which was not shown.")
    for item in expected:
        if ids.count(item) != 1:
            raise UnreadableError(f"`rank` holds {item} {ids.count(item)} times.")
