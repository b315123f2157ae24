"""Existing data brought into a loop."""

from pathlib import Path

from rlhf_dagster.data.import_file import IMPORT_KINDS, ImportOptions, ImportReport, Kind, import_dataset, import_file
from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.formats import prepare_store
from rlhf_dagster.loop.folder import LoopFolder


def import_into(loop: LoopFolder, kind: str, file: Path | None, options: ImportOptions) -> ImportReport:
    """Import a file, or without one the data set of `data.judgments_dataset`; see :func:`import_file`.

    Raises UserError while another import into the loop is at work, which would add the same: on any machine where the
    ledger is in Postgres or the loop's folder on a shared disk, else on this one.
    """
    known = _kind(kind)
    prepare_store(loop.store)
    with loop.ledger.exclusive_at_once(".import", loop.root / "work") as is_alone:
        if not is_alone:
            raise UserError(f"Another import into {loop.root} is at work: wait until it ends, then try again.")
        return _import(loop, known, file, options)


def _import(loop: LoopFolder, known: Kind, file: Path | None, options: ImportOptions) -> ImportReport:
    if file is not None:
        return import_file(known, file, loop.store, loop.ledger, options)
    dataset = loop.config.data.judgments_dataset
    if known != "judgments" or dataset is None:
        raise UserError("No FILE is given; only `rlhf import judgments` goes without, of `data.judgments_dataset`.")
    return import_dataset(dataset, loop.root, loop.store, loop.ledger, options)


def _kind(name: str) -> Kind:
    for kind in IMPORT_KINDS:
        if kind == name:
            return kind
    raise UserError(f"{name} cannot be imported; choose one of {', '.join(IMPORT_KINDS)}.")


def has_judgments(kind: str, report: ImportReport) -> bool:
    """Whether judgments were imported, which a round holds that is to be open."""
    return kind == "judgments" and report.refusals < report.read and not report.held_back


def failed_import(report: ImportReport, dry_run: bool) -> str:
    """Why an import brought nothing; empty where it did. A few refused rows are no failure, and neither a dry run."""
    if report.refusals == report.read:
        first = "; ".join(f"{report.unit} {number}: {reason}" for number, reason in report.refused[:3])
        return f"Nothing can be imported: {first or 'there are no rows'}."
    return "" if dry_run or not report.held_back else f"Nothing is imported: {report.held_back}."
