"""SIGKILL, a full disk and EIO at the calls of the file system that `rlhf run train_round` makes, in a tiny loop.

    python -m benchmarks.kill_round [--points 60] [--seed 0] [--faults kill,eio,full] [--in-place] [--rounds FOLDER]
                                    [--jobs 1]

Counted are the calls about the loop's files but for Dagster's own records. Each asset is a stage; each point runs the
command for one (`--until`), in a folder and a process of its own, with one fault at one call. After it `rlhf check`
must find nothing, an error must be one sentence, and the same command must go on and end with the tables, reports,
decisions and models (by their digests) of a round without a fault. First comes one call of each kind (what is done,
with which file), the faults taking turns, then the other faults at these, then calls at random. A point takes some
three CPU seconds: its processes are forked from one that has made a round, and pictures are not drawn. ``--in-place``
shows that the check can fail: the store then overwrites files where they are.
"""

import argparse
import itertools
import logging
import os
import random
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks.faults import shim
from benchmarks.kill_calls import FAULTS, SENTENCE, write_in_place

COLLECTED, FINISHED = "collected", "stages.txt"
"""A loop whose first round is collected; the names of the stages of a round that was made to its end."""
PRELOADED = ("rlhf_dagster.training.reward.train", "rlhf_dagster.training.ppo.train", "rlhf_dagster.pages.plots")
_CHANGING = re.compile(r"[0-9a-f]{8,}|\d+")
"""Digests, numbers and random names."""


@dataclass(frozen=True)
class Stage:
    """``start`` is the loop's folder where it begins; ``sites`` says what each of its calls does, with which file."""

    name: str
    start: Path
    sites: Sequence[str]
    end: str = ""
    """Digests of what is there when it has ended."""


@dataclass(frozen=True)
class Point:
    stage: Stage
    call: int
    fault: str


@dataclass(frozen=True)
class Outcome:
    """``site`` is what the call did at which the fault came, empty where there were not so many calls."""

    point: Point
    site: str
    problem: str

    def __str__(self) -> str:
        return f"{self.point.stage.name}, {self.point.fault} at call {self.point.call} ({self.site}): {self.problem}"


def main() -> int:
    shim.under_shim("benchmarks.kill_round")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", default="kill,eio,full")
    parser.add_argument("--in-place", action="store_true")
    parser.add_argument("--rounds", type=Path, help="a folder that keeps the round without a fault for the next time")
    parser.add_argument("--jobs", type=int, default=1, help="points that are tried at once")
    options = parser.parse_args()
    preload(options.in_place)
    with tempfile.TemporaryDirectory() as name:
        scratch, rounds = Path(name), options.rounds or Path(name)
        os.environ["RLHF_CACHE"] = str(scratch / "cache")
        warm_up(rounds, scratch / "warm")
        if not (rounds / FINISHED).is_file():
            make_stages(rounds)
        stages = [read_stage(rounds, asset) for asset in (rounds / FINISHED).read_text().split()]
        calls, kinds = sum(len(stage.sites) for stage in stages), len({*all_sites(stages)})
        print(f"{calls} calls of {kinds} kinds", flush=True)
        points = itertools.islice(points_of(stages, options.faults.split(","), options.seed), options.points)
        return report(try_all(points, partial(outcome_at, scratch=scratch), options.jobs))


def preload(in_place: bool) -> None:
    """Once, before the processes that run a command each are forked."""
    import importlib

    for module in ("benchmarks.faults.rounds", "torch._dynamo", *PRELOADED):
        importlib.import_module(module)
    from rlhf_dagster.pages import plots

    plots._png = lambda figure: b""  # type: ignore[assignment]  # a third of a round's time, and no file of the loop's
    for name in ("rlhf_dagster", "dagster"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if in_place:
        from rlhf_dagster.storage import local

        local.write_atomically = lambda path, data, private=False: write_in_place(path, data)  # type: ignore[assignment]


def warm_up(folder: Path, root: Path) -> None:
    """Make a round in this process, which then has imported and prepared what those that are forked from it need."""
    from benchmarks.faults.rounds import make_collected, train_round

    collected = folder / COLLECTED
    if not collected.exists():
        in_child_or_end(lambda: make_collected(collected) or "")
    copy(collected, root)
    train_round(root)
    shutil.rmtree(root)


def make_stages(folder: Path) -> None:
    """Make a round in ``folder/whole``; where each stage begins a copy is kept, and a trace of the calls in another."""
    from benchmarks.faults.rounds import train_round, trained_assets

    whole = folder / "whole"
    copy(folder / COLLECTED, whole)
    assets = in_child_or_end(lambda: "\n".join(trained_assets(whole)))
    for asset in assets.split():
        copy(whole, folder / f"before-{asset}")
        shutil.rmtree(whole)
        copy(folder / f"before-{asset}", whole)

        def act(asset: str = asset) -> str:
            traced(folder / f"{asset}.calls", whole, "count")
            train_round(whole, asset)
            shim.disarm()
            return ""

        in_child_or_end(act)
        _end_of(folder, asset).write_text(in_child_or_end(lambda: digests_of(whole)))
    (folder / FINISHED).write_text(assets)


def _end_of(folder: Path, asset: str) -> Path:
    return folder / f"{asset}.digests"


def read_stage(folder: Path, asset: str) -> Stage:
    sites = sites_of(folder / f"{asset}.calls", folder / "whole")
    return Stage(asset, folder / f"before-{asset}", sites, _end_of(folder, asset).read_text())


def in_child_or_end(act: Callable[[], str]) -> str:
    ended, text = shim.in_child(act)
    if ended != "done":
        raise SystemExit(f"without a fault: {ended} {text}")
    return text


def copy(loop: Path, root: Path) -> None:
    """A loop of its own: a copy that knows where it comes from would be refused."""
    from rlhf_dagster.loop.guards.place import PLACE_FILE

    shutil.copytree(loop, root, ignore=shutil.ignore_patterns(PLACE_FILE))


def traced(calls: Path, root: Path, fault: str, call: int = 0) -> None:
    """From here on a line for each call goes to the file ``calls``, and the fault comes at one of them."""
    from rlhf_dagster.automation.instance import dagster_home

    shim.trace(os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_TRUNC))
    shim.leave_out(dagster_home(root))
    action, error = FAULTS.get(fault, (shim.COUNT, 0))
    shim.arm(root, action, call, error)


def sites_of(calls: Path, root: Path) -> list[str]:
    """What traced calls do, with names and numbers that differ from run to run left out."""
    return [site_of(line, root) for line in calls.read_text(errors="surrogateescape").splitlines()]


def site_of(line: str, root: Path) -> str:
    kind, _, path = line.partition(" ")
    return f"{kind} {_CHANGING.sub('#', path.removeprefix(str(root.resolve())).lstrip('/'))}"


def all_sites(stages: Sequence[Stage]) -> Iterator[str]:
    return (site for stage in stages for site in stage.sites)


def points_of(stages: Sequence[Stage], faults: Sequence[str], seed: int) -> Iterator[Point]:
    """Each kind of call once, the faults taking turns; then with the other faults; then calls and faults at random."""
    draw, by_site = random.Random(seed), dict[str, list[tuple[Stage, int]]]()
    for stage in stages:
        for call, site in enumerate(stage.sites):
            by_site.setdefault(site, []).append((stage, call))
    chosen = [draw.choice(places) for places in by_site.values()]
    draw.shuffle(chosen)
    for turn in range(len(faults)):
        for number, (stage, call) in enumerate(chosen):
            yield Point(stage, call, faults[(number + turn) % len(faults)])
    everywhere = [place for places in by_site.values() for place in places]
    while True:
        yield Point(*draw.choice(everywhere), draw.choice(faults))


def digests_of(root: Path) -> str:
    from benchmarks.faults.rounds import digests

    return "\n".join(f"{name}: {digest}" for name, digest in digests(root).items())


def outcome_at(point: Point, scratch: Path) -> Outcome:
    """Try a point in a folder of its own."""
    root, calls = scratch / f"tried-{os.getpid()}", scratch / f"calls-{os.getpid()}"
    copy(point.stage.start, root)
    try:
        problem = problem_at(point, root, calls)
        return Outcome(point, dict(enumerate(sites_of(calls, root))).get(point.call, ""), problem)
    finally:
        shutil.rmtree(root)


def problem_at(point: Point, root: Path, calls: Path) -> str:
    """What is wrong after a fault; empty where nothing is."""
    from benchmarks.faults.rounds import damages, raw_failures, train_round

    def act() -> str:
        traced(calls, root, point.fault, point.call)
        train_round(root, point.stage.name)
        return ""

    def check() -> str:
        if found := [*raw_failures(root), *damages(root)]:
            return f"after it: {'; '.join(found)}"
        train_round(root, point.stage.name)
        if found := damages(root):
            return f"in the end: {'; '.join(found)}"
        return differences(point.stage.end, digests_of(root))

    ended, said = shim.in_child(act)
    if ended == "raised" and not f"raised {said}".startswith(SENTENCE):
        return f"no sentence: {said}"
    checked, problem = shim.in_child(check)
    return problem if checked == "done" else f"the same command does not go on: {problem}"


def differences(expected: str, found: str) -> str:
    pairs = zip(expected.split("\n"), found.split("\n"), strict=True)
    return "; ".join(f"{one} and not {other}" for one, other in pairs if one != other)


def try_all(points: Iterable[Point], try_one: Callable[[Point], Outcome], jobs: int) -> Iterator[Outcome]:
    """The outcome at each point, in the order of the points."""
    if jobs == 1:
        yield from map(try_one, points)
        return
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        yield from pool.map(try_one, points)


def report(outcomes: Iterable[Outcome]) -> int:
    tried, failed, kinds = Counter[str](), Counter[str](), set[str]()
    for outcome in outcomes:
        fault = outcome.point.fault
        tried[fault] += 1
        kinds.add(outcome.site)
        if outcome.problem:
            failed[fault] += 1
            print(outcome, flush=True)
        if tried.total() % 20 == 0:
            print(f"{tried.total()} tried, {failed.total()} failed", flush=True)
    for fault, number in tried.items():
        print(f"{fault:>7} {number:>5} tried {failed[fault]:>4} failed")
    print(f"{tried.total()} tried at {len(kinds - {''})} kinds of calls, {failed.total()} failed")
    return int(bool(failed))


if __name__ == "__main__":
    raise SystemExit(main())
