"""What the import of many judgments costs, what one line more costs, and what is there after it was killed.

    python benchmarks/import_judgments.py [--lines 1000000] [--judges-each 5] [--kills 10] [--export]

Lines have 857 bytes or a few more, as those of public comparisons of summaries and answers. Every step is a process of
its own, whose processor time and greatest memory are those that the operating system counts. With --kills, a second
loop gets the same file by imports that are killed at random moments until one ends. With --export, all labels go out in
our own form and into another loop. Exit code 1 if the tables are not the same then.
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
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from rlhf_dagster.config.loop import CONFIG_FILE
from rlhf_dagster.data.import_file import import_file
from rlhf_dagster.data.imported import imported
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LEDGER_FILE
from rlhf_dagster.lineage.people import PEOPLE_KEY_VARIABLE, people_of
from rlhf_dagster.loop.export.exports import export_records
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.labels import read_labels
from rlhf_dagster.records.parquet import read_parquet, to_parquet
from rlhf_dagster.records.round_keys import IMPORT_ROUND
from rlhf_dagster.records.schemas import COMPARISONS, COMPLETIONS, IMPORTED_PROMPTS, INTS, LABELS, table
from rlhf_dagster.storage.local import LocalStore

TABLES = {"prompts": IMPORTED_PROMPTS, "completions": COMPLETIONS, "comparisons": COMPARISONS}
_VOCABULARY = 3000
_BYTES = 857
_JUDGES = 200
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
    """Make the tables of the round that holds imported judgments, as its assets do."""
    loop = opened(folder)
    labels, unreadable = read_labels(loop, IMPORT_ROUND, "train")
    comparisons = loop.label_store.comparisons(IMPORT_ROUND, "train")
    for asset, rows, schema in (
        ("preference_labels", labels, LABELS),
        ("preference_batch", comparisons, COMPARISONS),
    ):
        loop.store.put(loop.asset_key(asset, IMPORT_ROUND), to_parquet(table(rows, schema)))
    return f"{len(labels):,} labels, {unreadable:,} unreadable"


def run_export(folder: Path, out: Path) -> str:
    exported = export_records(opened(folder), "labels", out, IMPORT_ROUND)
    return f"{sum(exported.rows.values()):,} rows of {exported.records:,} labels"


def compare(folder: Path, other: Path) -> str:
    """Whether two loops hold the same labels; pseudonyms of the first are names to the second."""
    again = people_of(opened(other).store).of
    same = said_in(folder, again).equals(said_in(other, str))
    return "the same" if same else "not the same"


def said_in(folder: Path, name: Callable[[str], str]) -> pa.Table:
    """What was said of each comparison, and in which order it was shown, by comparison and annotator."""
    loop = opened(folder)
    labels, comparisons = (
        read_parquet(loop.store.local(loop.asset_key(asset, IMPORT_ROUND)))
        for asset in ("preference_labels", "preference_batch")
    )
    shown = dict(zip(*comparisons.select(["comparison_id", "display_order"]).to_pydict().values(), strict=True))
    asked = labels["comparison_id"].to_pylist()
    orders = [
        shown[one] if own is None else own for one, own in zip(asked, labels["display_order"].to_pylist(), strict=True)
    ]
    same = ["comparison_id", "kind", "ranks", "axes", "strength", "flags", "reason", "seconds", "updated_at"]
    names = [name(annotator) for annotator in labels["annotator"].to_pylist()]
    found = labels.select(same).append_column("order", pa.array(orders, INTS)).append_column("by", pa.array(names))
    return found.sort_by([("comparison_id", "ascending"), ("by", "ascending")])


def opened(folder: Path) -> LoopFolder:
    config = folder / CONFIG_FILE
    if not config.exists():
        config.write_text(_CONFIG, encoding="utf-8")
    return LoopFolder.open(folder)


def same_tables(first: Path, second: Path) -> str:
    """Whether two loops hold the same tables, and the same answers at the same positions."""
    differing = [name for name in (*TABLES, "annotations") if not held(name, first).equals(held(name, second))]
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


def held(name: str, folder: Path) -> pa.Table:
    if name in TABLES:
        found = imported(LocalStore(folder), name, TABLES[name])
        return TABLES[name].empty_table() if found is None else found
    given, _ = EmbeddedLabelStore(folder / LEDGER_FILE).read(IMPORT_ROUND, "train")
    rows = [(one.position, one.annotation_id, one.version, str(one.result)) for one in given]
    return pa.table(dict(zip(("position", "annotation", "version", "result"), zip(*rows, strict=True), strict=True)))


if __name__ == "__main__":
    main()
