"""Annotations of which there is one version: what many of them share is made once."""

from collections.abc import Sequence
from datetime import datetime

from rlhf_dagster.data.judged.finder import Judged
from rlhf_dagster.data.judged.rows import answer_of, extras_of, listed_order, order_of
from rlhf_dagster.labeling.ledger.versions import FirstVersion, result_json, stamp

_Form = tuple[tuple[int, ...], tuple[int, ...], str]
"""What a result depends on beside what was said: the order listed, the comparison's display order, and its kind."""


class FirstAnswers:
    """The first and only versions of annotations of one batch."""

    def __init__(self, judged: Judged, people: Sequence[str], at: datetime) -> None:
        """``people`` are the pseudonyms of the batch's annotators, ``at`` stands for times that lines do not give."""
        columns = judged.batch.columns
        self._rows, self._people = judged.rows, people
        self._listings, self._decisions = columns.listings, columns.decisions
        self._ids = [row.get("comparison_id", "") for row in judged.rows]
        self._row_of = judged.row_of.tolist()
        self._listing_of = columns.listing_of[judged.lines].tolist()
        self._annotator_of = columns.annotator_of[judged.lines].tolist()
        self._decision_of = columns.decision_of[judged.lines].tolist()
        self._forms: dict[tuple[int, int], int] = {}
        self._numbers: dict[_Form, int] = {}
        self._results: dict[tuple[int, int], str] = {}
        self._stamps = [stamp(decision.submitted_at or at) for decision in columns.decisions]

    def version(self, place: int, identity: str) -> FirstVersion:
        """Of the annotation ``identity``, from the judgment at a place among those judged."""
        row, listing, decision = self._row_of[place], self._listing_of[place], self._decision_of[place]
        when = self._stamps[decision]
        return FirstVersion(
            identity,
            1,
            self._ids[row],
            self._people[self._annotator_of[place]],
            "submitted",
            self._result(row, listing, decision),
            self._decisions[decision].seconds,
            when,
            when,
        )

    def _result(self, row: int, listing: int, decision: int) -> str:
        form = self._forms.get((row, listing))
        if form is None:
            form = self._forms[row, listing] = self._form(row, listing)
        result = self._results.get((form, decision))
        if result is None:
            result = self._results[form, decision] = self._made(row, listing, decision)
        return result

    def _form(self, row: int, listing: int) -> int:
        asked = self._rows[row]
        order = listed_order(asked, self._listings[listing])
        return self._numbers.setdefault(
            (tuple(order), tuple(asked["display_order"]), asked["kind"]), len(self._numbers)
        )

    def _made(self, row: int, listing: int, decision: int) -> str:
        asked, said = self._rows[row], self._decisions[decision]
        order = listed_order(asked, self._listings[listing])
        return result_json(answer_of(said, asked, order) | extras_of(said) | order_of(said, asked, order))
