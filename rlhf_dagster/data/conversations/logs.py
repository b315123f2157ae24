"""The logs that `data.feedback` names, read line by line, as often as it takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from rlhf_dagster.data.conversations.logged import Logged, Thumbs, line_of_log
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.known import sources_in
from rlhf_dagster.data.reading.source import NumberedRow, RowSource


@dataclass(frozen=True)
class LogPlace:
    """Where a line is."""

    log: str
    """The file, as the settings name it, or the folder that they name with the file's name."""
    line: int
    """Counted from 1."""


@dataclass(frozen=True)
class Logs:
    """The files of logs, oldest name first in each folder, and which of those that are named are not there yet."""

    files: list[tuple[str, RowSource]]
    missing: list[str]

    @classmethod
    def of(cls, names: list[str], root: Path) -> "Logs":
        """``names`` are relative to ``root``. Raises UserError for what is there and can hold no lines."""
        files = [
            (name if (root / name).is_file() else f"{name.rstrip('/')}/{source.name}", source)
            for name in names
            if (root / name).exists()
            for source in sources_in(root / name)
        ]
        return cls(files, [name for name in names if not (root / name).exists()])

    def lines(self, up_to: int | None = None) -> Iterator[tuple[LogPlace, Logged | Thumbs | BadLineError]]:
        """All lines, or so many: a log may grow while it is read."""
        numbered = ((name, row) for name, source in self.files for row in source.rows())
        for name, row in islice(numbered, up_to):
            yield LogPlace(name, row[0]), _said(row)


def _said(row: NumberedRow) -> Logged | Thumbs | BadLineError:
    values = row[1]
    if isinstance(values, BadLineError):
        return values
    try:
        return line_of_log(values)
    except BadLineError as error:
        return error
