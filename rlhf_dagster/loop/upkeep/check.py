"""`rlhf check`: everything that a loop keeps, looked at once."""

from collections.abc import Iterator

from rlhf_dagster.errors import Damaged, UserError
from rlhf_dagster.lineage.formats import FORMAT_FILE, bring_up_to_date, prepare_store
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.upkeep.files import check_files, check_leftovers, check_records_of_dagster, set_aside
from rlhf_dagster.loop.upkeep.findings import Finding
from rlhf_dagster.loop.upkeep.readers import check_readers
from rlhf_dagster.loop.upkeep.references import check_journals, check_ledger_rows, check_models, check_registry
from rlhf_dagster.loop.upkeep.server import check_server


def check_format(loop: LoopFolder) -> Iterator[Finding]:
    """A finding about the loop's format; one of an older format is brought up to date."""
    try:
        bring_up_to_date(loop.store)
    except Damaged as damaged:
        mend = "this release has written the loop, as far as can be told: `--repair` says so anew"
        yield Finding(str(damaged), mend, lambda: _stamp(loop))


def _stamp(loop: LoopFolder) -> str:
    set_aside(loop, FORMAT_FILE)
    prepare_store(loop.store)
    return f"{FORMAT_FILE} is written anew."


def check_loop(loop: LoopFolder) -> Iterator[Finding]:
    """What is not as it should be; nothing is changed. A check that cannot be finished is a finding, too."""
    for check in (
        check_format,
        check_files,
        check_journals,
        check_registry,
        check_models,
        check_ledger_rows,
        check_records_of_dagster,
        check_server,
        check_leftovers,
        check_readers,
    ):
        try:
            yield from check(loop)
        except UserError as error:
            yield Finding(str(error), "mend this first, then run `rlhf check` again")
