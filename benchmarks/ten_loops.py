"""Ten loops and a team's twenty other assets in one `dg` project: how long it takes to load, and what a tick costs.

    python benchmarks/ten_loops.py [--loops 10] [--repeats 5] [--ticks 3] [--out JSON]

Loads the definitions in fresh processes, as a code server does, and has a daemon and its code server look at every
schedule and sensor of every loop, which are all on. Says seconds by the clock and of CPU: on a machine that others use
the latter are what it costs. Exit code 1 where the median of CPU is over its bar, 3 s for loading and 2 s for a tick,
or `dg check defs` finds something.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from team_at_work import TeamAtWork
from team_project import OWN_ASSETS, write_project

from rlhf_dagster.automation.sensors import loop_automation
from rlhf_dagster.config.loop import LoopConfig

LOAD_BAR, TICK_BAR = 3.0, 2.0
SENSORS = len(loop_automation(LoopConfig())[1])
"""Of each loop."""
LOAD = """
import time
began = time.perf_counter()
import {module}
repository = {module}.defs().get_repository_def()
repository.load_all_definitions()
print(time.perf_counter() - began, time.process_time())
"""
"""Its own seconds by the clock, and those of CPU since the process began: Python's start included."""


def make_team(root: Path, loops: int) -> TeamAtWork:
    """The project and its instance. Every loop runs by itself, but opens a round once a year."""
    automation = {"running": True, "open_round_cron": "0 0 1 1 *", "poll_seconds": 1}
    declared = {
        name: {"name": name, "key_prefix": name, "root": str(root / name), "automation": automation}
        for name in (f"loop_{number}" for number in range(loops))
    }
    team = TeamAtWork(write_project(root / "team_of_ten", "team_of_ten", declared), root / "home")
    team.configure()
    return team


def load_times(team: TeamAtWork, repeats: int) -> tuple[list[float], list[float]]:
    """Seconds by the clock, and of CPU, of as many processes; a first one compiles what is not compiled yet."""
    found = [team.run("python", "-c", LOAD.format(module=team.module)) for _ in range(repeats + 1)][1:]
    if failed := [one.stderr for one in found if one.returncode]:
        raise SystemExit(failed[0])
    wall, cpu = zip(*(map(float, one.stdout.split()) for one in found), strict=True)
    return list(wall), list(cpu)


def tick_times(team: TeamAtWork, loops: int, least: int) -> tuple[list[float], float]:
    """Seconds of each tick by the clock, and the mean seconds of CPU of one, daemon and code server together.

    Nothing counts before each sensor has looked once, and then each looks ``least`` times more.
    """
    team.start_daemon()
    try:
        before, spent_before = _once_all_looked(team, loops, 1), team.cpu_seconds()
        after, spent = _once_all_looked(team, loops, 1 + least), team.cpu_seconds() - spent_before
    finally:
        team.stop()
    ticks = [tick for name, found in after.items() for tick in found[: len(found) - len(before.get(name, ()))]]
    if errors := [tick.error.message for tick in ticks if tick.error]:
        raise SystemExit(errors[0])
    return [tick.end_timestamp - tick.timestamp for tick in ticks], spent / len(ticks)


def _once_all_looked(team: TeamAtWork, loops: int, least: int) -> dict[str, list[Any]]:
    """The ticks of every sensor, once each has had so many."""
    looked = team.ticks()
    while sum(len(ticks) >= least for ticks in looked.values()) < SENSORS * loops:
        team.require_alive()
        time.sleep(2)
        looked = team.ticks()
    return looked


def said(name: str, seconds: list[float]) -> str:
    parts = (min(seconds), statistics.median(seconds), max(seconds))
    return f"{name:28}{len(seconds):>6}" + "".join(f"{part:>10.2f}" for part in parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loops", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=5, help="processes that load the project")
    parser.add_argument("--ticks", type=int, default=3, help="of each sensor at least")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ten-loops-") as folder:
        team = make_team(Path(folder).resolve(), options.loops)
        checked = team.run("dg", "check", "defs")
        wall, cpu = load_times(team, options.repeats)
        ticks, tick_cpu = tick_times(team, options.loops, options.ticks)
    print(f"{options.loops} loops, {OWN_ASSETS} other assets: dg check defs ends with {checked.returncode}")
    print(f"{'seconds':28}{'times':>6}{'min':>10}{'median':>10}{'max':>10}")
    figures = {"load, clock": wall, "load, CPU": cpu, "tick, clock": ticks, "tick, CPU (mean of all)": [tick_cpu]}
    for name, seconds in figures.items():
        print(said(name, seconds))
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    slow = statistics.median(cpu) > LOAD_BAR or tick_cpu > TICK_BAR
    return 1 if slow or checked.returncode else 0


if __name__ == "__main__":
    sys.exit(main())
