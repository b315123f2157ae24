"""Rows of our own form that hold texts and a choice alone, as most do: each text that many rows share is checked once.

Every other row is read key by key (:func:`~rlhf_dagster.data.judgment_forms.own.parse_judgment`), and these would give
the same then.
"""

from typing import Any

from rlhf_dagster.data.judgment_forms.base import RowValues
from rlhf_dagster.data.line_records import Decision, JudgmentParts, Listing
from rlhf_dagster.records.outcome import ranks_from_best

_KEYS = frozenset({"comparison", "prompt", "responses", "policies", "annotator", "choice"})
_REMEMBERED = 20_000
"""Comparisons, annotators and choices that are remembered at a time."""


class PlainRows:
    """The judgments of plain rows; those that say the same share their parts."""

    def __init__(self) -> None:
        self._listings: dict[Any, Listing] = {}
        self._annotators: set[Any] = {None}
        self._decisions: dict[tuple[int, type, Any], Decision | None] = {}

    def judgment(self, row: RowValues) -> JudgmentParts | None:
        """None where the row is not plain, or not right."""
        if not _KEYS.issuperset(row) or "choice" not in row:
            return None
        responses, policies = row.get("responses"), row.get("policies")
        if type(responses) is not list or len(responses) < 2:
            return None
        if policies is not None and (type(policies) is not list or len(policies) != len(responses)):
            return None
        comparison, annotator = row.get("comparison"), row.get("annotator")
        key = ("" if comparison is None else comparison, row.get("prompt"), tuple(responses), tuple(policies or ()))
        try:
            # Only texts equal those that were checked.
            listing = self._listings.get(key) or self._checked(*key)
            is_named = annotator in self._annotators or self._is_name(annotator)
            decision = self._decision(row["choice"], len(responses))
        except TypeError:  # a list or an object in place of a text, which has no hash
            return None
        return JudgmentParts(listing, annotator or "", decision) if listing and is_named and decision else None

    def _checked(
        self, comparison: Any, prompt: Any, responses: tuple[Any, ...], policies: tuple[Any, ...]
    ) -> Listing | None:
        if not _are_texts(comparison, prompt, *responses, *policies) or not prompt.strip():
            return None
        listing = Listing(comparison, prompt, responses, policies)
        if len(self._listings) >= _REMEMBERED:
            self._listings.clear()
        self._listings[listing] = listing
        return listing

    def _is_name(self, annotator: Any) -> bool:
        if not _are_texts(annotator):
            return False
        if len(self._annotators) < _REMEMBERED:
            self._annotators.add(annotator)
        return True

    def _decision(self, choice: Any, k: int) -> Decision | None:
        key = (k, type(choice), choice)  # True equals 1
        if key in self._decisions:
            return self._decisions[key]
        decision = _decision(choice, k)
        if len(self._decisions) < _REMEMBERED:
            self._decisions[key] = decision
        return decision


def _decision(choice: Any, k: int) -> Decision | None:
    kind = "pair" if k == 2 else "best_of_k"
    if choice is None:
        return Decision(None, kind)
    if choice == "tie":
        return Decision(tuple(ranks_from_best(range(k), k)), kind)
    if type(choice) is int and 0 <= choice < k:
        return Decision(tuple(ranks_from_best([choice], k)), kind)
    return None


def _are_texts(*values: Any) -> bool:
    """Whether all are texts that every table can hold."""
    try:
        text = "".join(values)
        if not text.isascii():
            text.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True
