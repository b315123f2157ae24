"""What the import of many judgments costs, what one line more costs, and what is there after it was killed.

    python benchmarks/import_judgments.py [--lines 1000000] [--judges-each 5] [--kills 10]

Lines have 857 bytes, as those of public comparisons of summaries and answers. Every import is a process of its own,
whose processor time and greatest memory are those that the operating system counts. With --kills, a second loop gets
the same file by imports that are killed at random moments until one ends; exit code 1 if its tables differ.
"""

import argparse
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.data.imported import imported
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, IMPORTED_PROMPTS
from rlhf_dagster.storage.local import LocalStore

TABLES = {"prompts": IMPORTED_PROMPTS, "completions": COMPLETIONS, "comparisons": COMPARISONS}
_VOCABULARY = 3000
_BYTES = 857
_JUDGES = 200


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--judges-each", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.into:
        run_import(options.file, options.into)
        return
    with tempfile.TemporaryDirectory() as name:
        sys.exit(not measure(Path(name), options.lines, options.judges_each, options.kills))


def measure(folder: Path, lines: int, judges_each: int, kills: int) -> bool:
    """Print what the imports cost; whether the tables are the same where some were killed."""
    file, more = folder / "judgments.jsonl", folder / "more.jsonl"
    write(file, judgments(0, lines, judges_each))
    write(more, judgments(lines // judges_each + 1, 1, 1))
    print(f"{lines:,} lines of {judges_each} judges each, {file.stat().st_size / 1e6:,.0f} MB")
    whole, broken = folder / "whole", folder / "killed"
    print("all:          ", timed(file, whole))
    print("again:        ", timed(file, whole))
    same = True
    if kills:
        times = sum(killed(file, broken, after) for after in moments(kills, lines))
        print(f"killed {times} times:", timed(file, broken))
        same = all(is_same(name, whole, broken) for name in (*TABLES, "annotations"))
        print("the tables are the same" if same else "THE TABLES DIFFER")
    print("one line more:", timed(more, whole))
    return same


def judgments(start: int, lines: int, judges_each: int) -> Iterator[dict]:
    """Comparisons from the number ``start``, each judged by some people in the orders that they saw."""
    drawn = random.Random(start)
    words = ["".join(drawn.choices("abcdefghijklmnopqrstuvwxyz", k=drawn.randint(3, 9))) for _ in range(_VOCABULARY)]
    for number in range(lines):
        comparison, judge = start + number // judges_each, number % judges_each
        if judge == 0 or number == 0:
            prompt, *responses = (" ".join(drawn.choices(words, k=k)) for k in (32, 37, 37))
        order = drawn.sample((0, 1), 2)
        yield {
            "comparison": f"c{comparison}",
            "prompt": prompt,
            "responses": [responses[index] for index in order],
            "policies": [f"policy {(comparison + index) % 7}" for index in order],
            "annotator": f"judge {(comparison * judges_each + judge) % _JUDGES}",
            "choice": drawn.choice((0, 0, 1, 1, "tie", None)),
        }


def write(file: Path, rows: Iterator[dict]) -> None:
    with file.open("w", encoding="utf-8") as opened:
        for row in rows:
            text = json.dumps(row)
            opened.write(text[:-1] + " " * max(0, _BYTES - 1 - len(text)) + "}\n")


def run_import(file: Path, folder: Path) -> None:
    """Import a file into a folder, and print what it has cost without the start of Python."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    started, began = own.ru_utime + own.ru_stime, time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    report = import_file("judgments", file, LocalStore(folder), EmbeddedLabelStore(folder / "labels.sqlite"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{report.added:,} added, {report.already_there:,} there, {len(report.refused):,} refused in "
        f"{used.ru_utime + used.ru_stime - started:.2f} CPU s, {time.perf_counter() - began:.2f} s, "
        f"{used.ru_maxrss / 1e6:.2f} GB"
    )


def command(file: Path, folder: Path) -> list[str]:
    return [sys.executable, __file__, "--file", str(file), "--into", str(folder)]


def timed(file: Path, folder: Path) -> str:
    return subprocess.run(command(file, folder), check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603


def moments(kills: int, lines: int) -> list[float]:
    """Seconds after which to kill, drawn so that some imports come far."""
    drawn = random.Random(0)
    return [drawn.uniform(1, 2 + lines / 10_000) for _ in range(kills)]


def killed(file: Path, folder: Path, after: float) -> bool:
    """Start an import and kill it after some seconds; whether it was still running."""
    process = subprocess.Popen(command(file, folder), stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def is_same(name: str, first: Path, second: Path) -> bool:
    """Whether two loops hold the same table, or the same answers at the same positions."""
    one, other = (held(name, folder) for folder in (first, second))
    return bool(one.equals(other))


def held(name: str, folder: Path) -> pa.Table:
    if name in TABLES:
        found = imported(LocalStore(folder), name, TABLES[name])
        return TABLES[name].empty_table() if found is None else found
    given, _ = EmbeddedLabelStore(folder / "labels.sqlite").read(IMPORT_ROUND, "train")
    rows = [(one.position, one.annotation_id, one.version, str(one.result)) for one in given]
    return pa.table(dict(zip(("position", "annotation", "version", "result"), zip(*rows, strict=True), strict=True)))


if __name__ == "__main__":
    main()
