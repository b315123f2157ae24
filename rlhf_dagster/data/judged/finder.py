"""Which comparison each imported judgment is about: one that the ledger has, or a new one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rlhf_dagster.data.judged.rows import (
    Response,
    comparison_of_line,
    completions_of,
    repeat_id,
    repeat_of,
    responses_of,
)
from rlhf_dagster.data.judged.showings import Showings, comparison_name
from rlhf_dagster.data.judged.spool import GivenJudgment
from rlhf_dagster.data.line_records import JudgmentLine
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


class Judged(NamedTuple):
    """A judgment and the comparison that it is about (a row of COMPARISONS)."""

    given: GivenJudgment
    row: Row
    showing: int
    """How often its annotator was shown the comparison before."""
    is_new: bool
    """Whether nobody has judged it yet."""


@dataclass
class _Group:
    """The lines of a batch that say the same of the comparison ``name``: prompt, responses and policies."""

    name: str
    members: list[Row]
    """Its completions."""
    lines: list[GivenJudgment] = field(default_factory=list)
    row: Row | None = None
    """The comparison, once it is known."""
    is_new: bool = True

    @property
    def speaker(self) -> JudgmentLine:
        """The first line that decides something, which shows the kind; without any, the first."""
        return next((given.line for given in self.lines if given.line.ranks is not None), self.lines[0].line)

    def kinds(self) -> list[str]:
        """What kind the comparison can be, the likeliest first: an undecided line does not show it."""
        own = self.speaker.kind
        return [own] if self.speaker.ranks is not None else [own, *(kind for kind in RANKED_KINDS if kind != own)]

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

    def find(self, batch: Iterable[GivenJudgment], showings: Showings) -> list[Judged]:
        """The judgments of a batch that do not contradict others, in their order, with their comparisons."""
        judged = []
        for group in self._chosen(_groups(batch)):
            row = group.row or self._add(group)
            fitting = [given for given in group.lines if self._fits(given, group.name, row)]
            judged += [Judged(given, row, showings.of(given), group.is_new) for given in fitting]
        judged.sort(key=lambda one: one.given.number)
        return self._with_repeats(judged)

    def _chosen(self, groups: Sequence[_Group]) -> list[_Group]:
        """For each name the group that says what the ledger says or, where it is a new name, the first."""
        self._look_up(groups)
        by_name: dict[str, list[_Group]] = {}
        for group in groups:
            by_name.setdefault(group.name, []).append(group)
        chosen = []
        for name, rivals in by_name.items():
            known = [group for group in rivals if not group.is_new]
            first = (known or ([] if name in self._names else rivals))[:1]
            for group in rivals:
                if group not in first:
                    self.refused += [(given.number, _contradiction(name, given)) for given in group.lines]
            chosen += first
        return chosen

    def _look_up(self, groups: Sequence[_Group]) -> None:
        ids = [group.ids() for group in groups]
        there = self._rows.comparisons_by_id(one for some in ids for one in some)
        for group, some in zip(groups, ids, strict=True):
            found = next((there[one] for one in some if one in there), None)
            if found is not None:
                group.row, group.is_new = comparison_of(found), False

    def _add(self, group: _Group) -> Row:
        row = comparison_of_line(group.name, group.lines[0].line, group.speaker.kind, group.members)
        row["labels_wanted"] = group.lines[0].people
        self.comparisons.append(row)
        self.completions += group.members
        return row

    def _fits(self, given: GivenJudgment, name: str, row: Row) -> bool:
        """Whether a line is of its comparison's kind; refused where it is not."""
        kind = given.line.kind
        if given.line.ranks is None or kind == row["kind"]:
            return True
        self.refused.append((given.number, f"comparison {name[:_SHOWN_NAME]} is of kind {row['kind']}, not {kind}"))
        return False

    def _with_repeats(self, judged: Sequence[Judged]) -> list[Judged]:
        """The judgments, those that were not the annotator's first about a repeat of their comparison."""
        ids = {one.given.number: repeat_id(one.row, one.showing) for one in judged if one.showing}
        there = {key: comparison_of(row) for key, row in self._rows.comparisons_by_id(ids.values()).items()}
        new: dict[str, Row] = {}
        for one in judged:
            identity = ids.get(one.given.number)
            if identity and identity not in there:
                new.setdefault(identity, repeat_of(one.row, one.showing, one.given.line))
        self.comparisons += new.values()
        return [
            one if one.given.number not in ids else _about_repeat(one, ids[one.given.number], there, new)
            for one in judged
        ]


def _about_repeat(one: Judged, identity: str, there: Mapping[str, Row], new: Mapping[str, Row]) -> Judged:
    is_new = identity in new
    return one._replace(row=(new if is_new else there)[identity], is_new=is_new)


def _groups(batch: Iterable[GivenJudgment]) -> list[_Group]:
    """In the order of their first lines."""
    groups: dict[tuple[str, Prompt, tuple[Response, ...]], _Group] = {}
    for given in batch:
        name, line = comparison_name(given), given.line
        content = (name, line.prompt, tuple(sorted(responses_of(line))))
        if content not in groups:
            groups[content] = _Group(name, completions_of(name, line.prompt, content[2]))
        groups[content].lines.append(given)
    return list(groups.values())


def _contradiction(name: str, given: GivenJudgment) -> str:
    before = f"on line {given.first}" if given.first < given.number else "in an earlier import"
    return f"comparison {name[:_SHOWN_NAME]} has another prompt or other responses than {before}"
