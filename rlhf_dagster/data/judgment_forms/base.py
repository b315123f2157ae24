"""What a form of judgments is: how its rows are known, and which judgments a row holds."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from rlhf_dagster.data.line_records import JudgmentLine, JudgmentParts
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.source import NumberedRow

RowValues = Mapping[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """Something in a row that is no judgment, such as a task that was skipped; it is counted."""

    reason: str


RowContent = JudgmentLine | JudgmentParts | LeftOut | BadLineError


class JudgmentForm(ABC):
    name: ClassVar[str]
    """As `--form` takes it."""
    shape: ClassVar[str]
    """What a row looks like, for people."""
    kept: ClassVar[tuple[str, ...]] = ()
    """Columns that the form knows and keeps in the metadata: `--strict` takes them."""

    @abstractmethod
    def fits(self, row: RowValues) -> bool:
        """Whether a row looks like one of this form, whatever is wrong with it."""

    @abstractmethod
    def lines(self, row: RowValues) -> Iterable[RowContent]:
        """What the row holds; raises BadLineError where nothing in it can be used."""

    def read(self, rows: Iterable[NumberedRow]) -> Iterator[tuple[int, RowContent]]:
        """What the rows hold, each with the number of its row."""
        for number, row in rows:
            if isinstance(row, BadLineError):
                yield number, row
            else:
                yield from ((number, found) for found in self.found_in(row))

    def found_in(self, row: RowValues) -> Iterator[RowContent]:
        """:meth:`lines`, and the reason where they end early."""
        try:
            yield from self.lines(row)
        except BadLineError as error:
            yield error
