"""`rlhf export`: what a loop holds, in the forms that others read."""

import json
from pathlib import Path
from typing import cast, get_args

from rlhf_dagster.cli.which_loop import open_to_read
from rlhf_dagster.data.export.exporting import Exported
from rlhf_dagster.data.export.pushing import push_folder, require_target
from rlhf_dagster.data.export.row_files import ending
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.export.exports import export_records
from rlhf_dagster.loop.export.tables import ExportKind


def export_data(
    kind: str, out: Path, folder: Path, round_key: str, form: str, licence: str, push_to: str, as_json: bool
) -> None:
    """Write records, push them where that is asked, and say what is there and what is not."""
    if kind not in get_args(ExportKind):
        raise UserError(f"{kind} cannot be exported; choose one of {', '.join(get_args(ExportKind))}.")
    if push_to:
        _require_folder(out)
        require_target(push_to)
    exported = export_records(open_to_read(folder), cast("ExportKind", kind), out, round_key, form, licence)
    pushed = push_folder(out, push_to) if push_to else ""
    if as_json:
        print(json.dumps(exported.as_dict() | ({"pushed_to": pushed} if pushed else {}), indent=1))
    else:
        _show(kind, exported, pushed)
    if not exported.rows:
        raise SystemExit(2)


def _require_folder(out: Path) -> None:
    if ending(out):
        raise UserError(f"--push-to takes a folder with a card; give OUT a name without an ending, not {out.name}.")


def _show(kind: str, exported: Exported, pushed: str) -> None:
    written = sum(exported.rows.values())
    splits = ", ".join(f"{n:,} {split}" for split, n in exported.rows.items())
    print(
        f"{exported.out}: {written:,} rows of {exported.records:,} {kind}, form {exported.form} ({splits or 'empty'})."
    )
    for reason, n in exported.left_out.items():
        print(f"  left out   {n:,}: {reason}")
    for what in exported.cannot_hold:
        print(f"  not held   {what}")
    if pushed:
        print(f"  pushed to  {pushed}")
