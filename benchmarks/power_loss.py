"""The power fails while a loop works: what was written after the last sync is dropped, cut off or zeros.

    python -m benchmarks.power_loss [--points 200] [--seed 0] [--leave-out state,table] [--without-sync]

A few commands of a loop are run once, and every call of the file system is written down. Then the folder is rebuilt as
it may be found after a power loss at random calls (benchmarks/faults/disk.py), and the loop is opened. Whatever a
command had confirmed must be there, and nothing may be there half. Exit code 1 where that does not hold.
``--without-sync`` shows that the check can fail: all calls of fsync are then left out of account.
"""

import argparse
import logging
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import shim
from benchmarks.faults.disk import Disk
from benchmarks.faults.shim import Call

BEGIN, DONE = "begin ", "done "


@dataclass(frozen=True)
class Step:
    """A command, and what must be there once it has returned: ``look`` of the fact then gives ``value``."""

    fact: str
    value: str
    act: Callable[[Path], None]


@dataclass(frozen=True)
class Loss:
    """What was found after a power loss before one call."""

    call: int
    problems: tuple[str, ...]
    said: tuple[str, ...]
    """Warnings with which the loop opened."""


def main() -> int:
    shim.under_shim("benchmarks.power_loss")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leave-out", default="", help="facts, for those who cannot wait for torch and Dagster")
    parser.add_argument("--without-sync", action="store_true")
    options = parser.parse_args()
    for name in ("rlhf_dagster", "dagster"):
        logging.getLogger(name).propagate = False
    with tempfile.TemporaryDirectory() as name:
        os.environ["RLHF_CACHE"] = str(Path(name, "cache"))
        root = Path(name).resolve() / "loop"
        root.mkdir()
        script = [step for step in steps() if step.fact not in options.leave_out.split(",")]
        calls, rng = record(script, root, Path(name, "log")), random.Random(options.seed)
        at = sorted(rng.choices(range(len(calls) + 1), k=options.points))
        return report([lose(script, calls[:call], root, rng, not options.without_sync) for call in at], calls)


def report(losses: Sequence[Loss], calls: Sequence[Call]) -> int:
    kinds = Counter(call.kind for call in calls)
    print(f"{len(calls)} calls written down, {kinds['s']} of them syncs")
    for loss in losses:
        for problem in loss.problems:
            print(f"after call {loss.call}: {problem}")
    failed = sum(bool(loss.problems) for loss in losses)
    said = sum(bool(loss.said) for loss in losses)
    print(f"{len(losses)} power losses, {failed} with something lost or half there; {said} opened with a warning")
    return int(bool(failed))


def steps() -> list[Step]:
    from benchmarks.faults import cases
    from rlhf_dagster.storage.local import LocalStore

    def import_one(root: Path) -> None:
        cases.prepare_prompts(root)

    def stop(root: Path) -> None:
        cases.prepare_reserve(root)
        cases.stop(root)

    return [
        Step("champion", "sft", cases.prepare_registry),
        Step("pin", "sft", cases.pin),
        Step("cord", "stopped", stop),
        Step("cord", "free", cases.resume),
        Step("table", "1", cases.prepare_table),
        Step("import", "1", import_one),
        Step("state", "1", lambda root: cases.write_state(root, 1)),
        Step("state", "2", lambda root: cases.write_state(root, 2)),
        Step("model", "whole", cases.keep_model),
        Step("state", "3", lambda root: cases.write_state(root, 3)),
        Step("table", "2", cases.write_table),
        Step("import", "20", cases.import_prompts),
        Step("champion", "sft ppo", cases.promote),
        Step("model", "whole", cases.keep_model),
        Step("cord", "stopped", cases.stop),
        Step("table", "none", lambda root: LocalStore(root).delete("assets/prompts.parquet")),
        Step("state", "none", lambda root: LocalStore(root).delete("work/state")),
    ]


def record(script: Sequence[Step], root: Path, log: Path) -> list[Call]:
    """Run all steps in a process of its own; returns its calls, with marks where steps begin and end."""

    def act() -> str:
        with log.open("wb", buffering=0) as file:
            shim.arm(root, shim.COUNT, log=file.fileno())
            for number, step in enumerate(script):
                shim.mark(f"{BEGIN}{number}")
                step.act(root)
                shim.mark(f"{DONE}{number}")
        return ""

    ended, text = shim.in_child(act)
    if ended != "done":
        raise SystemExit(f"the steps fail by themselves: {text}")
    with log.open("rb") as file:
        return list(shim.read_log(file))


def lose(script: Sequence[Step], calls: Sequence[Call], root: Path, rng: random.Random, honour_sync: bool) -> Loss:
    """The power fails after ``calls``."""
    disk = Disk(root, honour_sync)
    for call in calls:
        disk.tell(call)
    with tempfile.TemporaryDirectory() as name, heard() as said:
        disk.crash(Path(name), rng)
        return Loss(len(calls), tuple(problems(script, calls, Path(name))), tuple(said))


def problems(script: Sequence[Step], calls: Sequence[Call], found: Path) -> list[str]:
    """Facts that are neither as the last command that is done left them, nor as the one that was cut off would."""
    marks = [call.path for call in calls if call.kind == "M"]
    done = [mark.removeprefix(DONE) for mark in marks if mark.startswith(DONE)]
    expected = {step.fact: {FIRST[step.fact]} for step in script}
    for number in done:
        expected[script[int(number)].fact] = {script[int(number)].value}
    if marks and marks[-1].startswith(BEGIN):
        cut_off = script[int(marks[-1].removeprefix(BEGIN))]
        expected[cut_off.fact] |= {cut_off.value, *PASSED.get(cut_off.fact, ())}
    seen = {fact: look(fact, found) for fact in expected}
    return [
        f"{fact}: {seen[fact]!r} where there should be {' or '.join(map(repr, sorted(allowed)))}"
        for fact, allowed in expected.items()
        if seen[fact] not in allowed
    ]


FIRST = {"champion": "", "pin": "none", "cord": "free", "table": "none", "import": "0", "state": "none"}
FIRST |= {"model": "none"}
PASSED = {"champion": ("",), "import": ("0",)}
"""What a command may leave between the value before and the one after."""


def look(fact: str, root: Path) -> str:
    """What is there of a fact; an error as text, so that it matches nothing that is allowed."""
    from benchmarks.faults import cases
    from rlhf_dagster.storage.local import LocalStore

    store = LocalStore(root)
    looks: dict[str, Callable[[], str]] = {
        "champion": lambda: " ".join(entry.policy_id for entry in cases.registry_of(root).history()),
        "pin": lambda: cases.pinned(root),
        "cord": lambda: cases.stopped(root),
        "table": lambda: cases.table_rows(root) if store.exists("assets/prompts.parquet") else "none",
        "import": lambda: cases.imported_prompts(root),
        "state": lambda: cases.state(root) if cases.keeper_in(root).newest() else "none",
        "model": lambda: cases.model(root),
    }
    try:
        return looks[fact]()
    except Exception as error:  # whatever it is, it is what was found
        return f"{type(error).__name__}: {error}"


class heard(logging.Handler):  # noqa: N801  # used as a function
    """Collects the package's warnings for the length of a block."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    def __enter__(self) -> list[str]:
        logging.getLogger("rlhf_dagster").addHandler(self)
        return self.said

    def __exit__(self, *_: object) -> None:
        logging.getLogger("rlhf_dagster").removeHandler(self)


if __name__ == "__main__":
    raise SystemExit(main())
