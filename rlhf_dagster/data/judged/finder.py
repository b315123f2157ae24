"""Which comparison each imported judgment is about: one that the ledger has, or a new one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rlhf_dagster.data.judged.batch import JudgedBatch
from rlhf_dagster.data.judged.rows import (
    Response,
    comparison_of_line,
    completions_of,
    repeat_id,
    repeat_of,
    responses_of,
)
from rlhf_dagster.data.judged.showings import Showings, comparison_name, lines_apart
from rlhf_dagster.data.line_records import Listing
from rlhf_dagster.data.parts.known import SeenTexts
from rlhf_dagster.labeling.ledger.contents import comparison_of
from rlhf_dagster.labeling.ledger.rows import LedgerRows
from rlhf_dagster.records.chats import Prompt
from rlhf_dagster.records.ids import comparison_id
from rlhf_dagster.records.kinds import RANKED_KINDS
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.tables import Row

_SHOWN_NAME = 80
"""Letters of a comparison's name in a sentence."""


@dataclass(frozen=True)
class Judged:
    """Lines of a batch and the comparisons that they are about."""

    batch: JudgedBatch
    lines: np.ndarray
    """Places in the batch, ascending: (judged,) int64."""
    rows: list[Row]
    """Rows of COMPARISONS."""
    row_of: np.ndarray
    """Which of these each of ``lines`` is about: (judged,) int64."""
    is_new: list[bool]
    """Of each row, whether nobody has judged it yet."""


@dataclass
class _Group:
    """The lines of a batch that say the same of the comparison ``name``: prompt, responses and policies."""

    name: str
    listing: Listing
    """As the first line lists it."""
    members: list[Row]
    """Its completions."""
    kind: str
    """That of the first line that decides something, which shows it; without any, of the first line."""
    decided: bool
    """Whether a line decides something."""
    people: int
    row: Row | None = None
    """The comparison, once it is known."""
    is_new: bool = True

    def kinds(self) -> list[str]:
        """What kind the comparison can be, the likeliest first: an undecided line does not show it."""
        return [self.kind] if self.decided else [self.kind, *(kind for kind in RANKED_KINDS if kind != self.kind)]

    def ids(self) -> list[str]:
        """What the id of the comparison can be."""
        members = [row["completion_id"] for row in self.members]
        return [comparison_id(members, kind, IMPORT_ROUND) for kind in self.kinds()]


class ComparisonFinder:
    """Finds the comparisons of one batch."""

    def __init__(self, rows: LedgerRows, names: SeenTexts) -> None:
        """``names`` are those of the comparisons that are there already."""
        self._rows, self._names = rows, names
        self.refused: list[tuple[int, str]] = []
        """Judgments that contradict others: line numbers and reasons."""
        self.comparisons: list[Row] = []
        """The new ones, in the order of their first lines; repeats come last."""
        self.completions: list[Row] = []
        """Theirs."""

    def find(self, batch: JudgedBatch, showings: Showings) -> Judged:
        """The judgments of a batch that do not contradict others, with their comparisons."""
        groups, group_of = _groups(batch)
        self._look_up(groups)
        chosen = self._chosen(groups)
        self._refuse_rivals(batch, groups, group_of, chosen)
        rows = [(group.row or self._add(group)) if taken else {} for group, taken in zip(groups, chosen, strict=True)]
        lines = self._fitting(batch, np.flatnonzero(chosen[group_of]), group_of, rows)
        judged = Judged(batch, lines, rows, group_of[lines], [group.is_new for group in groups])
        return self._with_repeats(judged, showings.of_lines(batch, lines))

    def _chosen(self, groups: Sequence[_Group]) -> np.ndarray:
        """Which group of each name says what the ledger says or, where it is a new name, is the first: (groups,)."""
        by_name: dict[str, list[int]] = {}
        for place, group in enumerate(groups):
            by_name.setdefault(group.name, []).append(place)
        there = self._names.known(list(by_name))
        chosen = np.zeros(len(groups), dtype=bool)
        for rivals, is_there in zip(by_name.values(), there, strict=True):
            known = [place for place in rivals if not groups[place].is_new]
            chosen[(known or ([] if is_there else rivals))[:1]] = True
        return chosen

    def _refuse_rivals(
        self, batch: JudgedBatch, groups: Sequence[_Group], group_of: np.ndarray, chosen: np.ndarray
    ) -> None:
        for place in np.flatnonzero(~chosen[group_of]).tolist():
            number, first = int(batch.columns.numbers[place]), int(batch.first[place])
            before = f"on line {first}" if first < number else "in an earlier import"
            name = groups[group_of[place]].name[:_SHOWN_NAME]
            self.refused.append((number, f"comparison {name} has another prompt or other responses than {before}"))

    def _look_up(self, groups: Sequence[_Group]) -> None:
        ids = [group.ids() for group in groups]
        there = self._rows.comparisons_by_id(one for some in ids for one in some)
        for group, some in zip(groups, ids, strict=True):
            found = next((there[one] for one in some if one in there), None)
            if found is not None:
                group.row, group.is_new = comparison_of(found), False

    def _add(self, group: _Group) -> Row:
        row = comparison_of_line(group.name, group.listing, group.kind, group.members)
        row["labels_wanted"] = group.people
        self.comparisons.append(row)
        self.completions += group.members
        return row

    def _fitting(self, batch: JudgedBatch, lines: np.ndarray, group_of: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
        """Those of some lines that are of their comparisons' kinds; the others are refused."""
        own = np.array([one.kind for one in batch.columns.decisions])[batch.columns.decision_of[lines]]
        wanted = np.array([row.get("kind", "") for row in rows])[group_of[lines]]
        odd = batch.decided[lines] & (own != wanted)
        for place in lines[odd].tolist():
            given, row = batch.given(place), rows[group_of[place]]
            name, kind = row["name"][:_SHOWN_NAME], given.decision.kind
            self.refused.append((given.number, f"comparison {name} is of kind {row['kind']}, not {kind}"))
        return lines[~odd]

    def _with_repeats(self, judged: Judged, showings: Mapping[int, int]) -> Judged:
        """``judged``, with those that were not the annotator's first about a repeat of their comparison."""
        if not showings:
            return judged
        places = np.searchsorted(judged.lines, list(showings)).tolist()
        rows = [judged.rows[judged.row_of[place]] for place in places]
        ids = [repeat_id(row, showing) for row, showing in zip(rows, showings.values(), strict=True)]
        repeats = {key: comparison_of(row) for key, row in self._rows.comparisons_by_id(ids).items()}
        there, places_of = set(repeats), dict[str, int]()
        for line, row, identity in zip(showings, rows, ids, strict=True):
            if identity not in repeats:
                repeats[identity] = repeat_of(row, showings[line], judged.batch.given(line).listing)
                self.comparisons.append(repeats[identity])
            places_of.setdefault(identity, len(judged.rows) + len(places_of))
        row_of = judged.row_of.copy()
        row_of[places] = [places_of[identity] for identity in ids]
        more = [repeats[identity] for identity in places_of]
        is_new = [identity not in there for identity in places_of]
        return Judged(judged.batch, judged.lines, judged.rows + more, row_of, judged.is_new + is_new)


def _groups(batch: JudgedBatch) -> tuple[list[_Group], np.ndarray]:
    """In the order of their first lines, and which of them each line is of: (lines,) int64."""
    columns, apart = batch.columns, lines_apart(batch)
    _, first, of = np.unique(
        columns.listing_of * (apart.max(initial=0) + 1) + apart, return_index=True, return_inverse=True
    )
    contents: dict[tuple[str, Prompt, tuple[Response, ...]], int] = {}
    place_of = np.empty(len(first), dtype=np.int64)
    order = np.argsort(first)
    listings, aparts = columns.listing_of[first[order]].tolist(), apart[first[order]].tolist()
    for asked, listing, number in zip(order.tolist(), listings, aparts, strict=True):
        content = _content(columns.names[listing], number, columns.listings[listing])
        place_of[asked] = contents.setdefault(content, len(contents))
    group_of = place_of[of]
    begins = _first_lines(group_of, np.arange(len(batch)), len(contents))
    speaks = _first_lines(group_of, np.flatnonzero(batch.decided), len(contents))
    return [_group(batch, *one) for one in zip(contents, begins, speaks, strict=True)], group_of


def _content(name: str, apart: int, listing: Listing) -> tuple[str, Prompt, tuple[Response, ...]]:
    return comparison_name(name, apart), listing.prompt, tuple(sorted(responses_of(listing)))


def _first_lines(group_of: np.ndarray, lines: np.ndarray, groups: int) -> list[int]:
    """The first of some ascending ``lines`` of each group; -1 where there is none: (groups,)."""
    found = np.full(groups, -1)
    found[group_of[lines[::-1]]] = lines[::-1]  # of several, the last one given is kept
    kept: list[int] = found.tolist()
    return kept


def _group(batch: JudgedBatch, content: tuple[str, Prompt, tuple[Response, ...]], begins: int, speaks: int) -> _Group:
    name, prompt, responses = content
    columns = batch.columns
    return _Group(
        name,
        listing=columns.listings[columns.listing_of[begins]],
        members=completions_of(name, prompt, responses),
        kind=columns.decisions[columns.decision_of[max(speaks, begins)]].kind,
        decided=speaks >= 0,
        people=int(batch.people[begins]),
    )
