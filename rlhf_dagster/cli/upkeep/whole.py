"""`rlhf check`, `rlhf backup` and `rlhf restore`."""

import shlex
from collections.abc import Iterator
from pathlib import Path

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.declared import DeclaredLoop
from rlhf_dagster.automation.instance import open_instance
from rlhf_dagster.cli.which_loop import find_loop, open_to_read
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.deleted_rounds import unsettled_sentence
from rlhf_dagster.loop.upkeep.backup import back_up
from rlhf_dagster.loop.upkeep.check import check_loop
from rlhf_dagster.loop.upkeep.findings import Finding
from rlhf_dagster.loop.upkeep.restore import bring_back


def print_findings(folder: Path, repair: bool) -> int:
    """Print the findings, and what was done about them; returns the exit code."""
    loop = find_loop(folder)
    findings = [*check_loop(loop), *_check_partitions(loop)]
    for finding in findings:
        print(finding.sentence)
        if repair and finding.repair:
            print(f"  mended     {finding.repair()}")
        else:
            print(f"  next       {finding.mend}")
    if not findings:
        print(f"Everything that {loop.config.name} keeps is whole.")
    elif not repair and any(finding.repair for finding in findings):
        print(f"`rlhf check {shlex.quote(str(folder))} --repair` does what is safe.")
    left = [finding for finding in findings if not (repair and finding.repair)]
    return 1 if left else 0


def _check_partitions(loop: LoopFolder) -> Iterator[Finding]:
    """Findings about rounds that Dagster does not know any more."""
    try:
        with open_instance(loop) as instance:
            said = unsettled_sentence(loop, open_rounds(instance, loop))
    except UserError as error:
        yield Finding(str(error), "mend this first, then run `rlhf check` again")
        return
    if said:
        yield Finding(said, "one of the two commands above")


def back_up_loop(folder: Path, to: str) -> None:
    loop = open_to_read(folder)
    if isinstance(loop, DeclaredLoop):
        raise UserError(
            f"A backup holds a loop with a loop.yaml and an instance of its own; of this one copy {loop.address}, the "
            "project and its instance."
        )
    backup = back_up(loop, to, print)
    print(f"{to} holds {backup.loop} as it was at {backup.at}, with {backup.annotations:,} annotations.")
    print(f"  back       rlhf restore {shlex.quote(to)} FOLDER")


def restore_loop(source: str, folder: Path) -> None:
    loop, backup = bring_back(source, folder, print)
    print(
        f"{folder} is {backup.loop} as it was at {backup.at}, with {backup.annotations:,} annotations. It is stopped."
    )
    print(f"  next       rlhf check {shlex.quote(str(folder))}")
    if loop.config.label_store.kind == "label_studio":
        print("             The label server may have moved on; what it has is compared when labels are read.")
    print(f"             rlhf resume {loop.option}")
