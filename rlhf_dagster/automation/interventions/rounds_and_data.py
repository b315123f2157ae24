"""Rounds opened, files imported, models retired."""

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import dagster as dg
from pydantic import Field

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.interventions.define import Signed, intervention, who
from rlhf_dagster.automation.interventions.imported_round import open_imported
from rlhf_dagster.automation.own_runs import require_none_at_work
from rlhf_dagster.data.import_file import IMPORT_KINDS, ImportOptions, ImportReport
from rlhf_dagster.data.reading.mapping import column_map
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.interventions.imports import failed_import, has_judgments, import_into
from rlhf_dagster.loop.interventions.models import retire

ImportKind = Enum("ImportKind", {kind: kind for kind in IMPORT_KINDS})  # type: ignore[misc]


class RoundConfig(dg.Config):
    """A round to open."""

    round: str = Field("", description="The round, such as round-0003; empty: the next one. No other can be opened.")


class ImportConfig(dg.Config):
    """A file to import."""

    kind: ImportKind = Field(ImportKind["prompts"], description="What the file holds.")
    file: str = Field(
        "",
        description="A file or a folder, by its path where this runs: JSON lines, JSON, CSV, TSV, Parquet "
        "or Arrow, packed or not; empty, for judgments: the data set of `data.judgments_dataset`.",
    )
    form: str = Field("", description="The form of judgments, where the first rows do not show it.")
    columns: dict[str, str] = Field(
        {}, description="Our name of a column, and the file's or a template: `{response_a: answer1}`."
    )
    strict: bool = Field(False, description="Refuse rows with columns that are not known.")
    dry_run: bool = Field(False, description="Read everything, and import nothing.")
    partial: bool = Field(False, description="Import the rest although more than half is refused.")
    licence: str = Field("", description="Of the file, as the Hub names it; kept, and said of what is exported.")


class RetirementConfig(Signed):
    """A model to retire."""

    model: str = Field("", description="Its id, as `rlhf models` lists it.")


@intervention("open_round", "Open the next labelling round.", RoundConfig)
def opening(context: dg.OpExecutionContext, config: RoundConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf round open`."""
    yield f"{open_next_round(context.instance, loop, config.round)} is open. Next: the job `collect_round` on it."


@intervention("import_file", "Bring existing data into the loop; a bad row is refused with its number.", ImportConfig)
def importing(context: dg.OpExecutionContext, config: ImportConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf import`."""
    kind = str(config.kind.value)
    columns = column_map([f"{ours}={theirs}" for ours, theirs in config.columns.items()])
    options = ImportOptions(config.form, columns, config.strict, config.dry_run, config.partial, config.licence)
    report = import_into(loop, kind, Path(config.file) if config.file else None, options)
    yield from _of_import(report)
    if failure := failed_import(report, config.dry_run):
        raise UserError(failure)
    if has_judgments(kind, report):
        yield "Next: " + "; ".join(open_imported(context.instance, loop))


@intervention("retire_model", "Remove a trained model that nothing needs; its manifest stays.", RetirementConfig)
def retiring(context: dg.OpExecutionContext, config: RetirementConfig, loop: LoopFolder) -> Iterator[str]:
    """As `rlhf models --retire`."""
    by = who(context, config)
    require_none_at_work(context.instance, loop)
    done = retire(loop, config.model, by, config.reason)
    yield f"{done.model_id} ({done.size / 1e6:,.1f} MB) is removed; its manifest stays in registry/removed."


def _of_import(report: ImportReport) -> Iterator[str]:
    unit = report.unit if report.form == "own" else "judgment"
    if report.form != "own":
        yield f"Read in the form `{report.form}`; the field `form` takes another."
    yield (
        f"{report.read:,} {unit}s read: {report.added:,} added, {report.already_there:,} already there, "
        f"{report.refusals:,} refused."
    )
    for number, reason in report.refused:
        yield f"{report.unit} {number}: {reason}"
    for what, times in report.left_out.items():
        yield f"Left out: {times:,} {what}."
