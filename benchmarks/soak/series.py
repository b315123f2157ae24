"""Memory, open files and disk of each loop, minute by minute, and whether they grow without end."""

import json
import os
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from benchmarks.soak.living import SAMPLES, Living, of_loop
from rlhf_dagster.automation.instance import dagster_home

MOST_GROWTH = 1.2
"""How much more the last third of the time may have than the second."""
SPARE = {"MiB": 40.0, "open": 50.0, "processes": 5.0, "MiB per round": 5.0, "files per round": 100.0}
"""What may come on top of that, by unit."""
MOST_FILES = 1024
FEWEST = 8
"""Samples of a third, with fewer of which nothing is said."""
_SIGNS = {
    "daemon": "dagster._daemon",
    "code server": "rlhf_dagster.definitions",
    "web server": "automation.web_server",
    "label server": "label-studio",
    "annotators": "annotate",
}


def measure(living: Living, rounds: int) -> dict[str, float]:
    """Each kind of process: the most MiB and open files of one, and how many there are. Disk: MiB and files a round."""
    found: dict[str, float] = defaultdict(float)
    for process in of_loop(living.root):
        with suppress(psutil.Error):
            kind = _kind(" ".join(process.cmdline()))
            found[f"{kind}, MiB"] = max(found[f"{kind}, MiB"], process.memory_info().rss / 2**20)
            found[f"{kind}, open"] = max(found[f"{kind}, open"], process.num_fds())
            found["all, processes"] += 1
    for name, folder in (("dagster", dagster_home(living.root)), ("loop", living.root)):
        files, size = _disk(folder)
        found[f"{name}, MiB per round"] = size / 2**20 / max(rounds, 1)
        found[f"{name}, files per round"] = files / max(rounds, 1)
    return {name: round(value, 1) for name, value in found.items()}


def _kind(line: str) -> str:
    if "execute_run" in line:
        return "run"
    return next((kind for kind, sign in _SIGNS.items() if sign in line), "others")


def _disk(folder: Path) -> tuple[int, int]:
    files = size = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += os.lstat(f"{path}/{name}").st_size
                files += 1
    return files, size


def keep(out: Path, name: str, at: float, sample: dict[str, float]) -> None:
    with (out / SAMPLES).open("a", encoding="utf-8") as file:
        file.write(json.dumps({"loop": name, "second": round(at), **sample}) + "\n")


def kept(out: Path) -> dict[str, list[dict[str, float]]]:
    """The samples of each loop, of all runs of the soak in this folder."""
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    file = out / SAMPLES
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        with suppress(ValueError):  # a line that was cut off
            sample = json.loads(line)
            found[sample.pop("loop")].append(sample)
    return found


def growth(samples: Sequence[dict[str, float]]) -> list[str]:
    """What has grown from the second third of the samples to the last by more than it may."""
    problems = []
    if len(samples) < 3 * FEWEST:
        return []
    for name, (middle, last) in medians(samples).items():
        unit = name.split(", ")[1]
        if unit == "open" and last > MOST_FILES:
            problems.append(f"{name}: {last:.0f}")
        elif last > MOST_GROWTH * middle + SPARE[unit]:
            problems.append(f"{name}: {middle:.0f}, then {last:.0f}")
    return problems


def medians(samples: Sequence[dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Each series' median in the second and in the last third of the samples."""
    third = len(samples) // 3
    parts = samples[third : 2 * third], samples[2 * third :]
    names = sorted({name for sample in samples for name in sample if name != "second"})
    return {name: (_median(parts[0], name), _median(parts[1], name)) for name in names}


def _median(samples: Sequence[dict[str, float]], name: str) -> float:
    return statistics.median([sample[name] for sample in samples if name in sample] or [0.0])
