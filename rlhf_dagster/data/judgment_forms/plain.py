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
"""Comparisons that are remembered at a time."""


class PlainRows:
    """The judgments of plain rows; those that say the same share their parts."""

    def __init__(self) -> None:
        self._listings: dict[Any, Listing] = {}
        self._decisions: dict[tuple[int, Any], Decision | None] = {}

    def judgment(self, row: RowValues) -> JudgmentParts | None:
        """None where the row is not plain, or not right."""
        if not _KEYS.issuperset(row) or "choice" not in row:
            return None
        responses, policies, annotator = row.get("responses"), row.get("policies"), row.get("annotator")
        if type(responses) is not list or not (policies is None or _is_list(policies, len(responses))):
            return None
        listing = self._shared(row.get("comparison"), row.get("prompt"), tuple(responses), tuple(policies or ()))
        if listing is None or not (annotator is None or _are_texts(annotator)):
            return None
        decision = self._decision(row["choice"], len(responses))
        return None if decision is None else JudgmentParts(listing, annotator or "", decision)

    def _shared(self, comparison: Any, prompt: Any, *lists: tuple[Any, ...]) -> Listing | None:
        key = ("" if comparison is None else comparison, prompt, *lists)
        try:
            found = self._listings.get(key)
        except TypeError:  # a list or an object in place of a text
            return None
        # Only texts equal those of a key that was checked.
        return found or self._checked(*key)

    def _checked(
        self, comparison: Any, prompt: Any, responses: tuple[Any, ...], policies: tuple[Any, ...]
    ) -> Listing | None:
        if len(responses) < 2 or not _are_texts(comparison, prompt, *responses, *policies) or not prompt.strip():
            return None
        listing = Listing(comparison, prompt, responses, policies)
        if len(self._listings) >= _REMEMBERED:
            self._listings.clear()
        self._listings[listing] = listing
        return listing

    def _decision(self, choice: Any, k: int) -> Decision | None:
        if type(choice) not in (int, str, type(None)):  # True equals 1
            return None
        key = (k, choice)
        if key not in self._decisions and len(self._decisions) < _REMEMBERED:
            self._decisions[key] = _decision(choice, k)
        return self._decisions.get(key)


def _decision(choice: Any, k: int) -> Decision | None:
    kind = "pair" if k == 2 else "best_of_k"
    if choice is None:
        return Decision(None, kind)
    if choice == "tie":
        return Decision(tuple(ranks_from_best(range(k), k)), kind)
    if isinstance(choice, int) and 0 <= choice < k:
        return Decision(tuple(ranks_from_best([choice], k)), kind)
    return None


def _is_list(value: Any, length: int) -> bool:
    return type(value) is list and len(value) == length


def _are_texts(*values: Any) -> bool:
    """Whether all are texts that every table can hold."""
    try:
        text = "".join(values)
        if not text.isascii():
            text.encode()
    except (TypeError, UnicodeEncodeError):
        return False
    return True
