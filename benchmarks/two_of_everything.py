"""Two and three of each command at once on one loop, in this process's namespace and in ones of their own.

    python -m benchmarks.two_of_everything [--turns 50] [--only COMMAND]

The commands of a turn begin within a millisecond of each other. As root each second turn gives every command a PID
namespace of its own, as containers have. One works, and the others say so in a sentence, or work after it: nothing is
doubled, no run that lives is said to be dead, and no command ends with a traceback. `rlhf ui` and
`rlhf label-studio up`, which go on until they are stopped, are in tests/integration.
"""

import argparse
import contextlib
import ctypes
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import dagster as dg
import yaml

from rlhf_dagster.assets.rounds import open_rounds
from rlhf_dagster.automation.instance import open_instance
from rlhf_dagster.cli import main as rlhf_main
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.lineage.manifest import write_manifest
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder

_NEW_MOUNTS, _NEW_PIDS, _PRIVATE = 0x00020000, 0x20000000, 0x44000
SETTINGS = {
    "name": "twins",
    "data": {"prompts": 1200, "demonstrations": 60, "pretraining_texts": 60},
    "compute": {"threads": 1},
}


CHAMPIONS = ("sft", "ppo-1", "ppo-2")


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str


@dataclass(frozen=True)
class Case:
    """A command, and what has to be true of the loop afterwards; sentences about what is not."""

    name: str
    command: Callable[[Path], Sequence[str]]
    wrong: Callable[[LoopFolder, list[Outcome]], list[str]]


def _rounds(loop: LoopFolder, outcomes: list[Outcome]) -> list[str]:
    with open_instance(loop) as instance:
        keys = open_rounds(instance, loop)
    said = {word for outcome in outcomes if outcome.code == 0 for word in outcome.said.split() if "round-0" in word}
    return [] if keys and said == set(keys) else [f"the commands name {sorted(said)}, and open are {keys}"]


def _runs(loop: LoopFolder, outcomes: list[Outcome]) -> list[str]:
    with open_instance(loop) as instance:
        runs = sorted(instance.get_run_records(), key=lambda record: record.start_time or 0)
    wrong = [f"run {one.dagster_run.run_id[:8]} is {one.dagster_run.status.value}" for one in runs if not _whole(one)]
    for first, second in itertools.pairwise(runs):
        if (second.start_time or 0) < (first.end_time or 0):
            wrong.append("two runs were at work at once")
    if not any(outcome.code == 0 for outcome in outcomes):
        wrong.append("none of the commands worked")
    return wrong


def _whole(record: dg.RunRecord) -> bool:
    return record.dagster_run.status == dg.DagsterRunStatus.SUCCESS


def _imported(loop: LoopFolder, outcomes: list[Outcome]) -> list[str]:
    wrong = [] if any(outcome.code == 0 for outcome in outcomes) else ["none of the commands worked"]
    tables = [key for key in loop.store.list("imports") if key.endswith(".parquet")]
    rows = [loop.table_at(key, "") for key in tables]
    ids = [row for table in rows if table is not None for row in table["prompt_id"]]
    return wrong + ([] if len(ids) == len(set(ids)) == 40 else [f"{len(ids)} rows of 40 prompts"])


def _stopped(loop: LoopFolder, _: list[Outcome]) -> list[str]:
    return [] if read_stop(loop.store) is not None else ["the loop is not stopped"]


def _nothing(_: LoopFolder, outcomes: list[Outcome]) -> list[str]:
    return [f"code {outcome.code}: {outcome.said[-200:]}" for outcome in outcomes if outcome.code not in (0, 1)]


def _rolled_back(loop: LoopFolder, outcomes: list[Outcome]) -> list[str]:
    """One step back, whoever was first; the second is told so."""
    champions = [entry.policy_id for entry in loop.registry.history()]
    worked = sum(outcome.code == 0 for outcome in outcomes)
    wrong = [] if champions == [*CHAMPIONS, CHAMPIONS[-2]] else [f"the champions were {champions}"]
    return wrong + ([] if worked == 1 else [f"{worked} commands say that they have rolled back"])


CASES = [
    Case("round open", lambda loop: ["round", "open", "--loop", str(loop)], _rounds),
    Case("run", lambda loop: ["run", "prepare", "--until", "prompts", "--again", "--loop", str(loop)], _runs),
    Case("import", lambda loop: ["import", "prompts", str(loop / "own.jsonl"), "--loop", str(loop)], _imported),
    Case("rollback", lambda loop: ["rollback", "--reason", "why", "--loop", str(loop)], _rolled_back),
    Case("stop", lambda loop: ["stop", "why", "--loop", str(loop)], _stopped),
    Case("round status", lambda loop: ["round", "status", "--loop", str(loop)], _nothing),
    Case("check", lambda loop: ["check", str(loop)], _nothing),
    Case("metrics", lambda loop: ["metrics", str(loop)], _nothing),
    Case("doctor", lambda loop: ["doctor", str(loop)], _nothing),
]


def make_loop(folder: Path) -> Path:
    """A loop on which nothing was done, but that three policies were its champions."""
    folder.mkdir()
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(SETTINGS), encoding="utf-8")
    lines = (json.dumps({"prompt": f"A text about number {number}"}) for number in range(40))
    (folder / "own.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    loop = LoopFolder.open(folder)
    LoopRunner.open(loop).instance.dispose()
    for number, policy in enumerate(CHAMPIONS):
        _make_champion(loop, policy, f"round-{number:04}" if number else "")
    return folder


def _make_champion(loop: LoopFolder, policy: str, round_key: str) -> None:
    """A policy without weights, which nothing but the registry looks at."""
    model, kind = loop.root / "models" / policy, "ppo" if round_key else "sft"
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps({"name": policy}), encoding="utf-8")
    write_manifest(model, kind=kind, round_key=round_key)
    loop.registry.register(policy, f"models/{policy}", kind, round_key)
    if round_key:
        loop.registry.promote(policy, round_key, "gate", "better")
    else:
        loop.registry.set_initial(policy)


def at_once(command: Sequence[str], count: int, apart: bool, scratch: Path) -> list[Outcome]:
    """Run a command ``count`` times, all at the same moment; ``apart`` gives each a PID namespace."""
    ready, go = os.pipe()
    children = [_fork(command, ready, go, apart, scratch / f"{number}") for number in range(count)]
    os.close(ready)
    os.close(go)  # the barrier
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    return [Outcome(code, (scratch / f"{number}").read_text(errors="replace")) for number, code in enumerate(codes)]


def _fork(command: Sequence[str], ready: int, go: int, apart: bool, output: Path) -> int:
    child = os.fork()
    if child:
        return child
    os.close(go)
    code = 70
    try:
        code = _in_own_namespace(lambda: _begin(command, ready, output)) if apart else _begin(command, ready, output)
    finally:
        os._exit(code)


def _begin(command: Sequence[str], ready: int, output: Path) -> int:
    with output.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.read(ready, 1)
    try:
        with mock.patch.object(sys, "argv", ["rlhf", *command]):
            rlhf_main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
    return 0


def _in_own_namespace(work: Callable[[], int]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEW_MOUNTS | _NEW_PIDS):
        raise OSError(ctypes.get_errno(), "unshare")
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 70
    try:
        libc.mount(b"none", b"/", None, _PRIVATE, None)
        libc.mount(b"proc", b"/proc", b"proc", 0, None)
        code = work()
    finally:
        os._exit(code)


def turns(scratch: Path, count: int, cases: Sequence[Case] = CASES) -> Iterator[tuple[str, str]]:
    """For each thing that went wrong the turn and a sentence."""
    made = make_loop(scratch / "made")
    for turn in range(count):
        began = time.monotonic()
        apart = turn % 2 == 1 and os.getuid() == 0
        for case in cases:
            loop, said = scratch / "loop", scratch / "said"
            shutil.copytree(made, loop, ignore=shutil.ignore_patterns("place.json"))
            said.mkdir()
            outcomes = at_once(case.command(loop), 2 + turn % 2, apart, said)
            where = f"turn {turn}, {case.name}{', apart' if apart else ''}"
            for outcome in outcomes:
                if "Traceback" in outcome.said or outcome.code not in (0, 1, 2):
                    yield where, f"code {outcome.code}: {outcome.said[-600:]}"
            for sentence in case.wrong(LoopFolder.open(loop), outcomes):
                yield where, sentence
            shutil.rmtree(loop)
            shutil.rmtree(said)
        print(f"turn {turn}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Two and three of each command at once.")
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--only", default="", help="one of the commands")
    asked = parser.parse_args()
    cases = [case for case in CASES if asked.only in ("", case.name)]
    wrong = 0
    with tempfile.TemporaryDirectory(prefix="rlhf-two-") as scratch:
        for where, sentence in turns(Path(scratch), asked.turns, cases):
            wrong += 1
            print(f"{where}: {sentence}", flush=True)
    print(f"{asked.turns} turns of {len(cases)} commands, two and three at once: {wrong} things went wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
