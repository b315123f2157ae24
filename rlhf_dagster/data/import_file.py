"""Existing prompts, demonstrations, judgments, feedback and gold questions, brought into a loop from files."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from rlhf_dagster.common.bounds.limits import IMPORT_ROWS
from rlhf_dagster.common.progress import tell_listeners
from rlhf_dagster.config.data import JudgmentsDataset
from rlhf_dagster.data.import_licences import SaidLicence
from rlhf_dagster.data.import_rows import RecordReader, better_command, reader_of
from rlhf_dagster.data.imported import add_demonstrations, add_feedback, add_gold, add_prompts
from rlhf_dagster.data.judgment_forms.known import recognised
from rlhf_dagster.data.judgments import add_judgments
from rlhf_dagster.data.lines import BadLineError
from rlhf_dagster.data.reading.hub import hub_source
from rlhf_dagster.data.reading.known import open_source
from rlhf_dagster.data.reading.mapping import check_columns, mapped_rows
from rlhf_dagster.data.reading.source import RowSource
from rlhf_dagster.data.reading.tally import ReadTally
from rlhf_dagster.data.text_forms import kind_of_texts
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.storage.base import Store

Kind = Literal["prompts", "demonstrations", "judgments", "feedback", "gold"]
IMPORT_KINDS: tuple[Kind, ...] = ("prompts", "demonstrations", "judgments", "feedback", "gold")
_STAGE = "import"
"""Under which listeners are told how many rows are read."""
_TOLD_EVERY = 1_000
"""Rows."""
_FIRST_ROWS = 20
"""Rows that show the form."""

__all__ = ["ImportOptions", "ImportReport", "import_dataset", "import_file", "import_source", "kind_of_file"]


@dataclass(frozen=True)
class ImportOptions:
    form: str = ""
    """The form of judgments; empty: the one that the first rows have."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Ours to theirs, as :func:`~rlhf_dagster.data.reading.mapping.column_map` reads them."""
    strict: bool = False
    """Refuse a row with a column that is not known, which is kept in the metadata or left out otherwise."""
    dry_run: bool = False
    """Read everything, and import nothing."""
    partial: bool = False
    """Import the rest although more than half is refused."""
    licence: str = ""
    """Under which the file is, by its identifier; empty: nobody says."""


@dataclass(frozen=True)
class ImportReport:
    """``added``, ``already_there`` and ``refusals`` add up to ``read``, unless nothing was imported (``held_back``)."""

    read: int
    """Judgments, prompts or the like, with those refused; of our own form, lines that are not blank."""
    added: int
    already_there: int
    """Prompts and demonstrations that were there without a user, and now have one (as a pseudonym), are included."""
    refused: tuple[tuple[int, str], ...]
    """Of the first ten refused, the number of the line or row, counted from 1, and the reason."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """How often each reason, without what only one row has, was given; empty if ``refused`` are all."""
    refusals: int = -1
    """How many were refused; by default as many as are in ``refused``."""
    form: str = "own"
    left_out: Mapping[str, int] = field(default_factory=dict)
    """What is no judgment, such as skipped tasks, and columns that no table keeps, by what it is."""
    held_back: str = ""
    """Why nothing was imported although something could be."""
    axes: tuple[str, ...] = ()
    """Of ratings, by name; the loop's `labeling.rating_axes` says which of them decides the ranks."""
    better_command: str = ""
    """Where most is refused, the command that fits what the rows look like; empty if none is known."""
    unit: str = "line"

    def __post_init__(self) -> None:
        if self.refusals < 0:
            object.__setattr__(self, "refusals", len(self.refused))


def import_file(
    kind: Kind, file: Path, files: Store, store: EmbeddedLabelStore | None = None, options: ImportOptions | None = None
) -> ImportReport:
    """Add the records of ``file`` to the loop whose store is ``files``, each once, however often it is imported.

    ``file`` is a file or a folder of files: JSON lines or arrays, CSV, TSV, Parquet or Arrow, plain or compressed.
    Prompts, demonstrations, feedback and gold questions go to ``imports/*.parquet`` there. Judgments become completions
    and comparisons there, and annotations of round ``round-0000`` in ``store``, which only judgments need. A row that
    cannot be used is refused, with its number and the reason, and the others are kept, unless more than half is
    refused. Raises :class:`UserError` for a file that cannot be read, or whose rows have no form that is known.
    """
    _check_kind(kind, store)
    return import_source(kind, open_source(Path(file)), files, store, options)


def import_source(
    kind: Kind,
    source: RowSource,
    files: Store,
    store: EmbeddedLabelStore | None = None,
    options: ImportOptions | None = None,
) -> ImportReport:
    """:func:`import_file` of any source."""
    _check_kind(kind, store)
    options = options or ImportOptions()
    first = _first_rows(source, options)
    reader = reader_of(kind, source, first, options.form, options.strict)
    tally, said = ReadTally(), SaidLicence(files, options.licence, source.name)
    try:
        records = said.of(_all_or_none(reader, source, options, tally))
        added, there = _add(kind, records, files, store, source.name, tally)
    except _HeldBackError as why:
        hint = better_command(kind, source, first, reader.form) if tally.mostly_refused else ""
        return replace(_report(tally, source, reader), held_back=str(why), better_command=hint)
    said.keep()
    return _report(tally, source, reader, added, there)


def kind_of_file(file: Path) -> Kind:
    """What kind of records the first rows of a file or folder are; raises UserError where they are none that is known.

    Comparisons whose answer is known (`gold`) look like judgments.
    """
    source = open_source(Path(file))
    first = _first_rows(source, ImportOptions())
    found = "judgments" if recognised(first) else kind_of_texts(first)
    for kind in IMPORT_KINDS:
        if kind == found:
            return kind
    columns = f"its columns ({', '.join(map(str, first[0]))[:200]})" if first else "its rows"
    raise UserError(
        f"{source.place}: {columns} are those of no kind of record; make the loop without it, and import it with "
        "`rlhf import KIND FILE --column OURS=THEIRS`."
    )


def import_dataset(
    dataset: JudgmentsDataset, root: Path, files: Store, store: EmbeddedLabelStore, options: ImportOptions | None = None
) -> ImportReport:
    """The judgments of a data set, as :func:`import_file` takes those of a file; ``root`` is the config's folder.

    What ``options`` say of form and columns goes before what the data set's settings say.
    """
    options = options or ImportOptions()
    columns = {**dataset.columns, **options.columns}
    options = replace(options, form=options.form or dataset.form, columns=columns)
    return import_source("judgments", hub_source(dataset, root), files, store, options)


def _check_kind(kind: str, store: EmbeddedLabelStore | None) -> None:
    if kind not in IMPORT_KINDS:
        *others, last = IMPORT_KINDS
        raise UserError(f"{kind!r} cannot be imported; choose {', '.join(others)} or {last}.")
    if kind == "judgments" and store is None:
        raise UserError("Judgments need a label store to go to; this loop has none.")


def _rows(source: RowSource, options: ImportOptions) -> Iterator[Any]:
    return mapped_rows(source.rows(), options.columns) if options.columns else source.rows()


def _first_rows(source: RowSource, options: ImportOptions) -> list[Mapping[str, Any]]:
    """The first rows that can be read, under our names."""
    first = [row for _, row in islice(source.rows(), _FIRST_ROWS)]
    if not first:
        raise UserError(f"{source.place}: the file is empty; give one JSON object a line, or a table with rows.")
    check_columns([row for row in first if not isinstance(row, BadLineError)], options.columns, source.place)
    return [row for _, row in islice(_rows(source, options), _FIRST_ROWS) if not isinstance(row, BadLineError)]


def _counted(rows: Iterator[Any]) -> Iterator[Any]:
    """The rows, of which listeners are told from time to time; at the end, that all are read."""
    read, most = 0, IMPORT_ROWS.most
    for read, row in enumerate(rows, 1):
        if read > most:
            raise UserError(
                f"More than {most:,} rows are too many for one import; split the file, or {IMPORT_ROWS.said()}."
            )
        if read % _TOLD_EVERY == 0:
            tell_listeners(_STAGE, read, 0, {})
        yield row
    if read >= _TOLD_EVERY:
        tell_listeners(_STAGE, read, read, {})


class _HeldBackError(Exception):
    """Everything is read, and nothing is to be imported; the message says why, and is empty if nothing could be."""


def _all_or_none(
    reader: RecordReader, source: RowSource, options: ImportOptions, tally: ReadTally
) -> Iterator[tuple[int, Any]]:
    """The records of all rows. Raises _HeldBackError behind the last: whoever adds them reads all before it writes."""
    yield from reader.records(_counted(_rows(source, options)), tally)
    if tally.read == tally.refused:
        raise _HeldBackError
    if options.dry_run:
        raise _HeldBackError("a dry run")
    if tally.mostly_refused and not options.partial:
        raise _HeldBackError("more than half is refused")


def _add(
    kind: str,
    records: Iterator[tuple[int, Any]],
    files: Store,
    store: EmbeddedLabelStore | None,
    source: str,
    tally: ReadTally,
) -> tuple[int, int]:
    if kind == "judgments":
        assert store is not None  # noqa: S101  # checked before, for the type checker
        added, there, conflicts = add_judgments(records, files, store, source)
        for number, reason in conflicts:
            tally.refuse(number, reason)
        return added, there
    lines = [record for _, record in records]
    if kind == "gold":
        return add_gold(lines, files)
    if kind == "feedback":
        return add_feedback(lines, files, source)
    return (add_prompts if kind == "prompts" else add_demonstrations)(lines, files, source)


def _report(tally: ReadTally, source: RowSource, reader: RecordReader, added: int = 0, there: int = 0) -> ImportReport:
    return ImportReport(
        read=tally.read,
        added=added,
        already_there=there,
        refused=tuple(tally.first),
        reasons=dict(tally.reasons.most_common()) if tally.refused > len(tally.first) else {},
        refusals=tally.refused,
        form=reader.form,
        left_out=dict(tally.left_out),
        axes=tuple(sorted(tally.axes)),
        unit=source.unit,
    )
