"""The command `rlhf import`."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_dagster.data.import_file import ImportOptions, ImportReport

_ALWAYS = ("read", "added", "already_there", "refused")
"""Keys that the report has in JSON whatever they say; the others are there where they say something."""


def options_of(
    form: str, columns: Sequence[str], strict: bool, dry_run: bool, partial: bool, licence: str = ""
) -> "ImportOptions":
    from rlhf_dagster.data.import_file import ImportOptions
    from rlhf_dagster.data.reading.mapping import column_map

    return ImportOptions(form, column_map(columns), strict, dry_run, partial, licence)


def import_data(kind: str, file: Path | None, folder: Path, as_json: bool, options: "ImportOptions") -> None:
    from rlhf_dagster.automation.instance import open_instance
    from rlhf_dagster.automation.interventions.imported_round import open_imported
    from rlhf_dagster.cli.which_loop import open_loop
    from rlhf_dagster.common.progress import listening
    from rlhf_dagster.loop.interventions.imports import has_judgments, import_into

    loop = open_loop(folder)
    with listening(RowsRead()):
        report = import_into(loop, kind, file, options)
    next_commands = []
    if has_judgments(kind, report):
        with open_instance(loop) as instance:
            next_commands = open_imported(instance, loop)
    if as_json:
        print(json.dumps(_as_json(report), indent=1))
    else:
        show_import(kind, file, report, next_commands)
        _show_axes(report, loop.config.labeling.rating_axes)
    # A few refused lines do not stop a script; a file of which nothing is imported does, but for a dry run.
    if report.refusals == report.read or (report.held_back and not options.dry_run):
        raise SystemExit(2)


@dataclass
class RowsRead:
    """Says on standard error, every few seconds, how much of an import is read, where it takes longer than that."""

    every: float = 2.0
    _last: float = field(default_factory=time.monotonic)
    _said: bool = False

    def __call__(self, stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
        is_due = time.monotonic() - self._last >= self.every
        if is_due or (self._said and total):
            self._last, self._said = time.monotonic(), True
            what = "all are read, and are kept now" if total else "read"
            print(f"{step:,} rows: {what} ...", file=sys.stderr, flush=True)


def show_import(kind: str, file: Path | None, report: "ImportReport", next_commands: list[str]) -> None:
    from rlhf_dagster.records.round_keys import IMPORT_ROUND

    for number, reason in report.refused:
        print(f"{file or 'data set'}, {report.unit} {number}: {reason}", file=sys.stderr)
    for reason, times in list(report.reasons.items())[: len(report.refused)]:
        print(f"{times:,} times: {reason}", file=sys.stderr)
    if report.better_command:
        print(f"It looks like something else; try `{report.better_command}`.", file=sys.stderr)
    if kind == "judgments" and report.form != "own":
        print(f"Read in the form `{report.form}`; --form takes another.")
    print(
        f"{report.read:,} {report.unit if report.form == 'own' else 'judgment'}s read: {report.added:,} added, "
        f"{report.already_there:,} already there, {report.refusals:,} refused."
    )
    for what, times in report.left_out.items():
        print(f"Left out: {times:,} {what}.")
    if report.held_back:
        rest = "; --partial imports the rest" if "half" in report.held_back else ""
        print(f"Nothing is imported: {report.held_back}{rest}.")
    if report.added and next_commands:
        print(f"The judgments are {IMPORT_ROUND}. Next:")
        for command in next_commands:
            print(f"  {command}")


def _show_axes(report: "ImportReport", deciding: Sequence[str]) -> None:
    """Say which axis decides where no setting does."""
    from rlhf_dagster.records.outcome import OVERALL, deciding_axis

    if len(report.axes) > 1 and not {*deciding, OVERALL} & set(report.axes):
        chosen = deciding_axis(dict.fromkeys(report.axes), ())
        print(
            f"Ratings are on {', '.join(report.axes)}; `labeling.rating_axes` names none, so `{chosen}` decides ranks."
        )


def _as_json(report: "ImportReport") -> dict[str, Any]:
    """The report without what it need not say."""
    said = asdict(report)
    silent = {"form": "own", "unit": "line", "refusals": len(report.refused)}
    return {key: value for key, value in said.items() if key in _ALWAYS or (value and value != silent.get(key))}
