"""SIGKILL, EIO and a full disk at every call of the file system that a loop's commands make.

    python -m benchmarks.kill_calls [--cases promotion,model] [--faults kill,eio] [--every 1] [--in-place]

Each command runs once for each of its calls and each fault, in a folder of its own and a process of its own. After the
fault the folder must be whole, what was there must be there or the new must be there, an error must be one sentence,
and the same command must go on to the end. Prints a table of counts; exit code 1 where anything failed. ``--in-place``
shows that the check can fail: the store then overwrites files where they are.
"""

import argparse
import errno
import logging
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.faults import shim

FAULTS = {
    "kill": (shim.KILL, 0),
    "tear": (shim.TEAR, 0),
    "eio": (shim.FAIL, errno.EIO),
    "enospc": (shim.FAIL, errno.ENOSPC),
    "full": (shim.FULL, 0),
}
"""``full`` is a disk that has no room from this call on, ``enospc`` one that has none for this call alone."""
SENTENCE = "raised UserError: "


@dataclass(frozen=True)
class Point:
    case: str
    fault: str
    call: int
    problem: str
    """Empty where all is well."""


def main() -> int:
    shim.under_shim("benchmarks.kill_calls")
    from benchmarks.faults.cases import CASES
    from rlhf_dagster.storage import local

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--every", type=int, default=1, help="try every so manieth call")
    parser.add_argument("--in-place", action="store_true")
    options = parser.parse_args()
    if options.in_place:
        local.write_atomically = lambda path, data, private=False: write_in_place(path, data)  # type: ignore[assignment]
    for name in ("rlhf_dagster", "dagster"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory() as name:
        os.environ["RLHF_CACHE"] = str(Path(name, "cache"))
        cases, faults = options.cases.split(","), options.faults.split(",")
        return report(point for case in cases for point in try_case(case, faults, options.every, Path(name)))


def write_in_place(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def report(points: Iterable[Point]) -> int:
    tried: Counter[tuple[str, str]] = Counter()
    failed: Counter[tuple[str, str]] = Counter()
    for point in points:
        tried[point.case, point.fault] += 1
        if point.problem:
            failed[point.case, point.fault] += 1
            print(f"{point.case}, {point.fault} at call {point.call}: {point.problem}", flush=True)
    for case, fault in tried:
        print(f"{case:>10} {fault:>7} {tried[case, fault]:>5} tried {failed[case, fault]:>4} failed")
    print(f"{sum(tried.values())} tried, {sum(failed.values())} failed")
    return int(bool(failed))


def try_case(name: str, faults: Iterable[str], every: int, scratch: Path) -> Iterator[Point]:
    """Every fault at every call of a command."""
    from benchmarks.faults.cases import CASES

    case, prepared = CASES[name], scratch / name / "prepared"
    case.prepare(prepared)
    calls = calls_of(name, prepared, scratch / name / "counted")
    for fault in faults:
        for call in range(0, calls, every):
            root = scratch / name / f"{fault}-{call}"
            _copy(prepared, root)
            yield Point(name, fault, call, problem_at(name, fault, call, root))
            shutil.rmtree(root)


def _copy(loop: Path, root: Path) -> None:
    """A loop of its own: a copy that knows where it comes from would be refused."""
    from rlhf_dagster.loop.guards.place import PLACE_FILE

    shutil.copytree(loop, root, ignore=shutil.ignore_patterns(PLACE_FILE))


def calls_of(name: str, prepared: Path, root: Path) -> int:
    """How many calls the command makes."""
    from benchmarks.faults.cases import CASES

    def act() -> str:
        shim.arm(root, shim.COUNT)
        CASES[name].act(root)
        return str(shim.count())

    _copy(prepared, root)
    ended, text = shim.in_child(act)
    if ended != "done":
        raise SystemExit(f"{name} fails by itself: {text}")
    return int(text)


def problem_at(name: str, fault: str, call: int, root: Path) -> str:
    """What is wrong after a fault at a call; empty where nothing is."""
    from benchmarks.faults.cases import CASES

    case, (action, error) = CASES[name], FAULTS[fault]

    def act() -> str:
        shim.arm(root, action, call, error)
        case.act(root)
        return ""

    ended, said = shim.in_child(act)
    if ended == "raised" and not f"raised {said}".startswith(SENTENCE):
        return f"no sentence: {said}"

    def check() -> str:
        try:
            found = case.look(root)
        except Exception as error:  # whatever it is, it is what is wrong
            return f"the folder is not whole after this: {type(error).__name__}: {error}"
        if wrong := wrong_state(name, fault, ended, found):
            return wrong
        case.act(root)
        return "" if case.look(root) == case.after else f"the same command ends with {case.look(root)!r}"

    checked, problem = shim.in_child(check)
    return problem if checked == "done" else f"the same command does not go on: {problem}"


def wrong_state(name: str, fault: str, ended: str, found: str) -> str:
    from benchmarks.faults.cases import CASES

    case = CASES[name]
    if found not in (case.before, case.after):
        return f"there is {found!r}, which is neither {case.before!r} nor {case.after!r}"
    if ended == "done" and found != case.after and not case.may_skip:
        return f"the command says that it is done, and there is {found!r}"
    if fault == "full" and name == "stop" and (ended, found) != ("done", "stopped"):
        return f"a full disk keeps the loop from being stopped: {ended}, {found}"
    if fault == "full" and ended == "raised" and name != "model" and found != case.before:
        return f"the command failed on a full disk and has changed {case.before!r} to {found!r}"
    return ""


if __name__ == "__main__":
    raise SystemExit(main())
