"""Loops that live for hours with real daemons and Label Studios, and a fault every minute.

    python -m benchmarks.soak [--hours 3] [--loops 3] [--fault-every 60] [--out FOLDER] [--seed 0]

Each loop has its own `rlhf ui` (daemon, code server, web server, Label Studio), simulated annotators who log in, and
trainings in processes of their own. A fault strikes a loop at a time, in random order: a kind of its processes is
killed, all of `rlhf ui` is, its Label Studio hangs, its stop cord is pulled and let go. The first loop's services are
let live, so that one sees whether they grow. Where FOLDER is a small file system of its own, such as a tmpfs, it is
also filled for a while. A person who follows docs/operations.md re-executes the runs that say so.

A FOLDER in which a soak was ended goes on: the hours of all its runs count, and being ended is one more fault. All that
a soak knows is there: `soak.json`, `samples.jsonl`, `story.log` with a summary every few minutes, and, in the end,
`report.json`. Of a summary as of the end must hold:

- no label is in a ledger or on a server twice, none that an annotator had a confirmation of is lost, and none is in a
  ledger that is on no server; in the end a ledger has all that its server has;
- every round is decided, at work, or waits for something that is said, and none stands still for 45 minutes;
- a tick that fails says in a sentence what is away, unless its code server was killed or gave no answer in time;
- memory, open files, and the disk that a round takes do not grow without end (benchmarks/soak/series.py has bounds);
- in the end, commands that look at a loop (`round status`, `doctor`, `check`, `metrics`) end without a traceback.

Exit code 1 if one of these is not so.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.soak import series
from benchmarks.soak.checks import Seen, as_operators, commands_speak, see
from benchmarks.soak.faults import Faults
from benchmarks.soak.living import Living, Record, Story, go_on, living_loops, make_loops, until

SETTLE_SECONDS = 600.0
"""In which everything has to be up again once faults have ended."""
REST_SECONDS = 120.0
"""After that, in which what is at work may end, before the last look."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=3.0, help="all runs in the folder together")
    parser.add_argument("--loops", type=int, default=3)
    parser.add_argument("--fault-every", type=float, default=60.0, help="seconds")
    parser.add_argument("--summary-every", type=float, default=300.0, help="seconds")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # Ended by hand, it ends what it has begun.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended; the same command goes on"))
    out = (options.out or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    out.mkdir(parents=True, exist_ok=True)
    story = Story(out)
    record, loops = _begin(out, options.loops, options.seed, story)
    faults = Faults(loops, record, story)
    try:
        _live(out, loops, record, faults, options)
        found = _in_the_end(loops, story)
    finally:
        faults.end_due(everything=True)
        record.write(out)
        for living in loops:
            living.stop()
    return _report(out, record, found, story)


def _begin(out: Path, count: int, seed: int, story: Story) -> tuple[Record, list[Living]]:
    record = Record.read(out)
    if record is None:
        record, loops = make_loops(out, count, seed)
        story(f"{len(loops)} loops in {out}")
    else:
        loops = living_loops(out, record)
        go_on(loops)
        record.faults["the soak"] = record.begun
        story(f"goes on in {out} after {record.seconds / 60:.0f} minutes")
    record.begun += 1
    record.write(out)
    return record, loops


def _live(out: Path, loops: list[Living], record: Record, faults: Faults, options: argparse.Namespace) -> None:
    before = now = time.monotonic()
    next_fault, next_summary = now + options.fault_every, now + options.summary_every
    for _ in until(3600 * options.hours - record.seconds):
        for living in loops:
            living.keep_up()
        now = time.monotonic()
        record.seconds, before = record.seconds + now - before, now
        faults.end_due()
        if now >= next_fault:
            next_fault = now + options.fault_every
            faults.strike()
            record.write(out)
        if now >= next_summary and not faults.under_way:
            next_summary = now + options.summary_every
            _summarize(out, loops, record, faults)


def _summarize(out: Path, loops: list[Living], record: Record, faults: Faults) -> None:
    for living in loops:
        name = living.root.name
        try:
            seen = see(living, at_rest=False)
            series.keep(out, name, record.seconds, series.measure(living, len(seen.rounds)))
            faults.story(f"{record.seconds / 60:.0f} min, {name}: {seen.line}")
            for run in as_operators(living):
                faults.story(f"{name}: a person has {run} done once more")
        except Exception as error:  # its database is locked or its server away: the next summary looks again
            faults.story(f"{record.seconds / 60:.0f} min, {name}: no summary: {type(error).__name__}: {error}")
            continue
        for problem in [*seen.problems, *record.stands(name, seen.rounds)]:
            if f"{name}: {problem}" not in record.problems:
                record.problems.append(f"{name}: {problem}")
                faults.story(f"PROBLEM {name}: {problem}")


def _in_the_end(loops: list[Living], story: Story) -> dict[str, Seen]:
    """Everything is let come up again, annotators stop, and then it is looked."""
    for _ in until(SETTLE_SECONDS):
        for living in loops:
            living.keep_up()
        if all(living.is_up() for living in loops):
            break
    up = {living.root.name: living.is_up() for living in loops}
    story(f"up again: {up}")
    for _ in until(REST_SECONDS):
        for living in loops:
            living.keep_up()
    for living in loops:
        living.running["annotators"].terminate()
        living.running["annotators"].wait()
    found = {}
    for living in loops:
        name = living.root.name
        found[name] = seen = see(living, at_rest=True)
        seen.problems += commands_speak(living)
        seen.problems += [] if up[name] else ["it is not up again"]
        story(f"the end, {name}: {seen.line}")
    return found


def _report(out: Path, record: Record, found: dict[str, Seen], story: Story) -> int:
    samples = series.kept(out)
    loops: dict[str, Any] = {}
    for name, seen in found.items():
        seen.problems += series.growth(samples[name])
        loops[name] = {
            "rounds": seen.rounds,
            "labels": seen.labels,
            "ticks": seen.ticks,
            "runs": seen.runs,
            "series, second third and last": series.medians(samples[name]),
            "problems": seen.problems,
        }
    problems = [*record.problems, *(f"{name}: {one}" for name, seen in found.items() for one in seen.problems)]
    report = {"minutes": record.seconds / 60, "faults": record.faults, "problems": problems, "loops": loops}
    (out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    for problem in problems:
        story(f"PROBLEM {problem}")
    struck = sum(record.faults.values())
    story(f"THE END: {record.seconds / 60:.0f} minutes, {struck} faults {record.faults}, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
