"""`rlhf ledger`: moving a loop's ledger to another place, and going on after a part of it was lost."""

from pathlib import Path

from rlhf_dagster.cli.which_loop import open_loop
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.loop.folder import LoopFolder


def copy(source: str, target: str) -> None:
    """Copy a ledger; each of the two is an address, a file, or the folder of a loop."""
    old = _address(source, "")
    new = _address(target, old.schema or _loop_name(source))
    if old == new:
        raise UserError(f"{old} cannot be copied to itself.")
    if not new.is_sqlite and not new.schema:
        raise UserError(f"{new}: say which loop the copy is for: add ?schema=NAME, the `name` in its loop.yaml.")
    copied = copy_ledger(old, new)
    print(f"{copied.annotations:,} annotations up to position {copied.position} copied to {new}, and checked.")
    if _loop_name(source):
        print(f"  next       set `ledger` in {Path(source) / CONFIG_FILE} to that address")


def go_on(folder: Path) -> None:
    """Let a loop go on with the ledger that is there."""
    loop = open_loop(folder)
    lost = loop.ledger_place.go_on()
    print(f"The ledger {lost}." if lost else "Nothing that was read is missing.")
    print(f"The loop goes on with the ledger {loop.ledger.address}; positions continue after {loop.ledger.position()}.")
    if lost and loop.config.label_store.kind == "label_studio":
        print("Labels that Label Studio still has are read next; send open rounds again (rlhf run collect_round).")


def _address(place: str, schema: str) -> LedgerAddress:
    if "://" in place or place.startswith("${"):
        return LedgerAddress.of(place, schema).beside(Path.cwd())
    if _loop_name(place):
        return LoopFolder.open(Path(place)).ledger_place.address
    return LedgerAddress.of(Path(place)).beside(Path.cwd())


def _loop_name(place: str) -> str:
    """The name of the loop in a folder; empty where there is none."""
    if "://" in place or not (Path(place) / CONFIG_FILE).is_file():
        return ""
    return LoopFolder.open(Path(place)).config.name
