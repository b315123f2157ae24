"""What is new about imported judgments: first answers, corrections, and what was said before."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from rlhf_dagster.data.judged.batch import GivenJudgment
from rlhf_dagster.data.judged.finder import Judged
from rlhf_dagster.data.judged.first_answers import first_versions
from rlhf_dagster.data.judged.rows import PROJECT, answer_of, extras_of, listed_order, order_of
from rlhf_dagster.data.judged.showings import are_apart
from rlhf_dagster.data.line_records import Decision
from rlhf_dagster.labeling.embedded import annotation_id
from rlhf_dagster.labeling.ledger.contents import annotation_of
from rlhf_dagster.labeling.ledger.rows import LedgerRow, LedgerRows
from rlhf_dagster.labeling.ledger.versions import FirstVersion
from rlhf_dagster.labeling.store import Annotation
from rlhf_dagster.records.pseudonyms import Pseudonyms
from rlhf_dagster.records.tables import Row

_KEPT = ("reason", "strength", "flags", "metadata")
_BESIDE = (*_KEPT, "shown_order")
"""Keys of a result beside the answer."""
_CONTRADICTS = (
    "the annotator has already judged this comparison, and chose otherwise; a later `submitted_at` makes it a "
    "correction"
)


class _One(NamedTuple):
    """A judgment and the comparison that it is about (a row of COMPARISONS)."""

    given: GivenJudgment
    row: Row


class Answers:
    """The annotation versions that a file adds to a ledger.

    A judgment that says what an earlier version has said is there already, so that a file can be imported again after
    its corrections; unless it was submitted later than the newest version. Of two lines of one file that contradict
    each other, the second must say that it is the later one.
    """

    def __init__(self, people: Pseudonyms) -> None:
        self.there = 0
        """Judgments that say nothing new."""
        self.refused: list[tuple[int, str]] = []
        """Line numbers and reasons."""
        self._pseudonym = cache(people.of)
        self._submitted: dict[str, datetime | None] = {}
        """Of annotations that the file speaks of more than once, when its last version of them was submitted."""

    def new(
        self, judged: Judged, rows: LedgerRows, newest: dict[str, LedgerRow]
    ) -> Iterator[Annotation | FirstVersion]:
        """The new versions of a batch; what the ledger has of these annotations is put into ``newest``."""
        at, batch = datetime.now(UTC), judged.batch
        people = [self._pseudonym(name) for name in batch.columns.annotators]
        annotators = batch.columns.annotator_of[judged.lines].tolist()
        ids = [
            annotation_id(judged.rows[row]["comparison_id"], people[annotator])
            for row, annotator in zip(judged.row_of.tolist(), annotators, strict=True)
        ]
        old = np.flatnonzero(~np.array(judged.is_new, dtype=bool)[judged.row_of])
        histories = self._histories([ids[place] for place in old.tolist()], rows, newest)
        others = histories.keys() | _more_than_once(ids)
        alone = [is_alone and one not in others for is_alone, one in zip(_are_alone(judged), ids, strict=True)]
        first = first_versions(judged, np.flatnonzero(alone), ids, people, at)
        for place, identity in enumerate(ids):
            if alone[place]:
                yield next(first)
                continue
            one = _One(batch.given(judged.lines[place]), judged.rows[judged.row_of[place]])
            version = self._version(identity, one, histories.get(identity, []), at)
            if version is not None:
                histories.setdefault(identity, []).append(version)
                yield version

    def _histories(
        self, ids: Sequence[str], rows: LedgerRows, newest: dict[str, LedgerRow]
    ) -> dict[str, list[Annotation]]:
        """The versions on record of some annotations, oldest first."""
        histories: dict[str, list[Annotation]] = {}
        for row in sorted(rows.versions(PROJECT, ids), key=lambda row: row["version"]):
            newest[row["annotation_id"]] = row
            histories.setdefault(row["annotation_id"], []).append(annotation_of(row))
        return histories

    def _version(self, identity: str, one: _One, history: Sequence[Annotation], at: datetime) -> Annotation | None:
        """The next version of an annotation; None where there is none."""
        decision, row = one.given.decision, one.row
        result = self._withdrawal(one, history) if decision.withdrawn else self._result(identity, one, history)
        if result is None:
            return None
        self._note(identity, one)
        status, by, when = (
            "deleted" if decision.withdrawn else "submitted",
            self._pseudonym(one.given.annotator),
            decision.submitted_at,
        )
        return Annotation(
            identity,
            row["comparison_id"],
            by,
            1,
            status,
            result,
            decision.seconds,
            created_at=when or at,
            updated_at=when or at,
        )

    def _withdrawal(self, one: _One, history: Sequence[Annotation]) -> Row | None:
        if history and history[-1].status == "submitted":
            return {}
        if history:
            self.there += 1
        else:
            self.refused.append((one.given.number, "a judgment that is not there cannot be withdrawn"))
        return None

    def _result(self, identity: str, one: _One, history: Sequence[Annotation]) -> Row | None:
        """The result of the next version; None where the line is none."""
        decision, row = one.given.decision, one.row
        order = listed_order(row, one.given.listing)
        said, shown = answer_of(decision, row, order) | extras_of(decision), order_of(decision, row, order)
        if not history:
            return said | shown
        newest = history[-1]
        if _says(newest, said) or (
            any(_says(version, said) for version in history) and not _is_later(decision, newest)
        ):
            self.there += 1
            self._note(identity, one)
            return None
        changed = _answer(said) != _answer(newest.result)
        if changed and not self._may_change(identity, decision):
            self.refused.append((one.given.number, _CONTRADICTS))
            return None
        kept = {} if changed else {key: newest.result[key] for key in _KEPT if key in newest.result}
        return kept | said | shown

    def _note(self, identity: str, one: _One) -> None:
        if one.given.same > 1:
            self._submitted[identity] = one.given.decision.submitted_at

    def _may_change(self, identity: str, decision: Decision) -> bool:
        """Whether a line can take the place of what was said before: by an earlier import, or earlier in time."""
        if identity not in self._submitted:
            return True
        before = self._submitted[identity]
        return before is not None and decision.submitted_at is not None and decision.submitted_at > before


def _are_alone(judged: Judged) -> list[bool]:
    """Whether each judgment is the only one in the file of its annotator about its comparison, and says something."""
    batch = judged.batch
    only = (batch.same == 1) | are_apart(batch)
    alone: list[bool] = (only & ~batch.withdrawn)[judged.lines].tolist()
    return alone


def _more_than_once(ids: Sequence[str]) -> set[str]:
    return {identity for identity, n in Counter(ids).items() if n > 1} if len(set(ids)) < len(ids) else set()


def _answer(result: Mapping[str, Any]) -> Row:
    return {key: value for key, value in result.items() if key not in _BESIDE}


def _says(version: Annotation, said: Mapping[str, Any]) -> bool:
    """Whether a version says all of it already."""
    if version.status != "submitted" or _answer(version.result) != _answer(said):
        return False
    return all(version.result.get(key) == said[key] for key in _KEPT if key in said)


def _is_later(decision: Decision, version: Annotation) -> bool:
    return decision.submitted_at is not None and decision.submitted_at > version.updated_at
