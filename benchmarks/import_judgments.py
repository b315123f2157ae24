"""What the import of many judgments costs, what one line more costs, and what is there after it was killed.

    python benchmarks/import_judgments.py [--lines 1000000] [--judges-each 5] [--kills 10] [--export]

Lines have 857 bytes or a few more, as those of public comparisons of summaries and answers. Every step is a process of
its own, whose processor time and greatest memory are those that the operating system counts. With --kills, a second
loop gets the same file by imports that are killed at random moments until one ends. With --export, all labels go out in
our own form and into another loop. Exit code 1 if the tables are not the same then.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.data.imported import imported
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LEDGER_FILE
from rlhf_dagster.lineage.people import PEOPLE_KEY_VARIABLE, people_of
from rlhf_dagster.loop.export.exports import export_records
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels
from rlhf_dagster.records.parquet import to_parquet
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, IMPORTED_PROMPTS, LABELS, table
from rlhf_dagster.storage.local import LocalStore

TABLES = {"prompts": IMPORTED_PROMPTS, "completions": COMPLETIONS, "comparisons": COMPARISONS}
_VOCABULARY = 3000
_BYTES = 857
_JUDGES = 200
_ROWS_AT_ONCE = 5000
_ASKED = ("comparison_id", "kind", "name", "prompt", "responses", "policy_ids")
_SAID = ("comparison_id", "kind", "ranks", "axes", "strength", "flags", "reason", "seconds", "updated_at")
_CONFIG = "name: judgments\ndata: {source: imports}\nlabel_store: {kind: embedded, simulated_annotators: false}\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--judges-each", type=int, default=5)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--export", action="store_true")
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, *paths = options.step
        run_step(STEPS[name], *map(Path, paths))
        return
    os.environ[PEOPLE_KEY_VARIABLE] = "the key of all loops that are compared"
    with tempfile.TemporaryDirectory() as name:
        sys.exit(not measure(Path(name), options))


def measure(folder: Path, options: argparse.Namespace) -> bool:
    """Print what the imports cost; whether the tables are the same where some were killed, and after an export."""
    file, more, whole = folder / "judgments.jsonl", folder / "more.jsonl", folder / "whole"
    write(file, judgments(0, options.lines, options.judges_each))
    write(more, judgments(options.lines // options.judges_each + 1, 1, 1))
    print(f"{options.lines:,} lines of {options.judges_each} judges each, {file.stat().st_size / 1e6:,.0f} MB")
    began = time.perf_counter()
    print("all:          ", step("import", file, whole))
    seconds = time.perf_counter() - began
    print("again:        ", step("import", file, whole))
    same = is_same_after_kills(file, whole, folder / "killed", options.kills, seconds) if options.kills else True
    print("one line more:", step("import", more, whole))
    return (is_same_after_export(whole, folder / "other") if options.export else True) and same


def is_same_after_kills(file: Path, whole: Path, broken: Path, kills: int, seconds: float) -> bool:
    """Whether a loop whose imports were killed at random moments has the same tables; a whole one takes ``seconds``."""
    drawn, times = random.Random(0), 0
    while times < kills:
        times += killed(file, broken, drawn.uniform(0, seconds))
    print(f"killed {times} times:", step("import", file, broken))
    same = step("same", whole, broken).startswith("the same")
    print("the tables are the same" if same else "THE TABLES DIFFER")
    return same


def is_same_after_export(whole: Path, other: Path) -> bool:
    """Whether the labels of a loop, exported and imported into another loop, are the same there."""
    out = other.with_suffix(".jsonl")
    print("label tables: ", step("tables", whole))
    print("export:       ", step("export", whole, out))
    print(f"in again:      {step('import', out, other)}, of {out.stat().st_size / 1e6:,.0f} MB")
    step("tables", other)
    same = step("compare", whole, other).startswith("the same")
    print("the labels are the same" if same else "THE LABELS DIFFER")
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


def run_step(work: Callable[..., str], *paths: Path) -> None:
    """Run a step, and print what it has cost without the start of Python."""
    own = resource.getrusage(resource.RUSAGE_SELF)
    started, began = own.ru_utime + own.ru_stime, time.perf_counter()
    said = work(*paths)
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(
        f"{said} in {used.ru_utime + used.ru_stime - started:.2f} CPU s, {time.perf_counter() - began:.2f} s, "
        f"{used.ru_maxrss / 1e6:.2f} GB"
    )


def run_import(file: Path, folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    report = import_file("judgments", file, LocalStore(folder), EmbeddedLabelStore(folder / LEDGER_FILE))
    return f"{report.added:,} added, {report.already_there:,} there, {report.refusals:,} refused"


def make_tables(folder: Path) -> str:
    """Make the tables of the round that holds imported judgments, as its assets do, one after the other."""
    loop = opened(folder)
    return f"{_make_labels(loop)}, {_make_batch(loop)}"


def _make_labels(loop: LoopFolder) -> str:
    labels, unreadable = read_labels(loop, IMPORT_ROUND, "train")
    _put(loop, "preference_labels", labels, LABELS)
    return f"{len(labels):,} labels, {unreadable:,} unreadable"


def _make_batch(loop: LoopFolder) -> str:
    comparisons = loop.label_store.comparisons(IMPORT_ROUND, "train")
    _put(loop, "preference_batch", comparisons, COMPARISONS)
    return f"{len(comparisons):,} comparisons"


def _put(loop: LoopFolder, asset: str, rows: pd.DataFrame, schema: pa.Schema) -> None:
    loop.store.put(loop.asset_key(asset, IMPORT_ROUND), to_parquet(table(rows, schema)))


def run_export(folder: Path, out: Path) -> str:
    exported = export_records(opened(folder), "labels", out, IMPORT_ROUND)
    return f"{sum(exported.rows.values()):,} rows of {exported.records:,} labels"


def compare(folder: Path, other: Path) -> str:
    """Whether two loops hold the same labels of the same texts; pseudonyms of the first are names to the second."""
    again = people_of(opened(other).store).of
    one, two = said_in(opened(folder), again), said_in(opened(other), str)
    return f"the same: {len(one):,} rows" if np.array_equal(one, two) else "not the same"


def said_in(loop: LoopFolder, name: Callable[[str], str]) -> np.ndarray:
    """A digest of each label in a loop: what was said of which texts, by whom, in which order they were shown.

    (labels,) of 16 bytes, ascending: they are equal where the labels are, in whatever order tables have them.
    """
    asked = {
        row["comparison_id"]: (digest_of([row[column] for column in _ASKED]), row["display_order"])
        for row in rows_of(loop, "preference_batch", ["comparison_id", "display_order", *_ASKED])
    }
    found = []
    for row in rows_of(loop, "preference_labels", ["comparison_id", "annotator", "display_order", *_SAID]):
        texts, order = asked[row["comparison_id"]]
        own = order if row["display_order"] is None else row["display_order"]
        found.append(digest_of([texts.hex(), name(row["annotator"]), own, *(row[column] for column in _SAID)]))
    return np.sort(np.array(found, dtype="S16"))


def rows_of(loop: LoopFolder, asset: str, columns: list[str]) -> Iterator[dict]:
    """The rows of a table, of which few are held at once."""
    file = loop.store.local(loop.asset_key(asset, IMPORT_ROUND))
    for batch in pq.ParquetFile(file).iter_batches(_ROWS_AT_ONCE, columns=columns):
        yield from batch.to_pylist()


def digest_of(values: Sequence[Any]) -> bytes:
    """16 bytes; none is 0, which an array of bytes would cut off."""
    digest = hashlib.blake2b(json.dumps(values, default=str).encode(), digest_size=16).digest()
    return digest.replace(b"\0", b"\1")


def opened(folder: Path) -> LoopFolder:
    config = folder / CONFIG_FILE
    if not config.exists():
        config.write_text(_CONFIG, encoding="utf-8")
    return LoopFolder.open(folder)


def same_tables(first: Path, second: Path) -> str:
    """Whether two loops hold the same tables, and the same answers at the same positions."""
    differing = [name for name in (*TABLES, "annotations") if held(name, first) != held(name, second)]
    return "not the same: " + ", ".join(differing) if differing else "the same"


STEPS: dict[str, Callable[..., str]] = {
    "import": run_import,
    "tables": make_tables,
    "export": run_export,
    "compare": compare,
    "same": same_tables,
}


def command(name: str, *paths: Path) -> list[str]:
    return [sys.executable, __file__, "--step", name, *map(str, paths)]


def step(name: str, *paths: Path) -> str:
    return subprocess.run(command(name, *paths), check=True, stdout=subprocess.PIPE, text=True).stdout.strip()  # noqa: S603


def killed(file: Path, folder: Path, after: float) -> bool:
    """Start an import and kill it after some seconds; whether it was still running."""
    process = subprocess.Popen(command("import", file, folder), stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        process.wait(after)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def held(name: str, folder: Path) -> str:
    """A digest of all rows of a table in their order, or of the ledger's annotations with their positions."""
    whole = hashlib.blake2b()
    for row in annotations_in(folder) if name not in TABLES else imported_rows(name, folder):
        whole.update(digest_of(row))
    return whole.hexdigest()


def annotations_in(folder: Path) -> Iterator[list[Any]]:
    for one in EmbeddedLabelStore(folder / LEDGER_FILE).annotations(IMPORT_ROUND, "train"):
        yield [one.position, one.annotation_id, one.version, one.comparison_id, one.annotator, one.status, one.result]


def imported_rows(name: str, folder: Path) -> Iterator[list[Any]]:
    found = imported(LocalStore(folder), name, TABLES[name])
    for batch in [] if found is None else found.to_batches(_ROWS_AT_ONCE):
        yield from (list(row.values()) for row in batch.to_pylist())


if __name__ == "__main__":
    main()
