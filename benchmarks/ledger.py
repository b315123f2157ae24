"""How fast a ledger of a million annotations is, in SQLite and in Postgres.

    python -m benchmarks.ledger [--annotations 1000000] [--place ADDRESS] [--out FILE]

Ten rounds are filled through the label store itself: 2 annotations of each comparison. Timed are the median idle tick
(open the ledger and count a round in which nothing is new), the median tick after one new label and after 500, and
reading a round whole. Without ``--place`` it is a file, and then a copy of it in a Postgres server that is started for
it. The exit code is 1 where a tick without or with one new label takes over 0.1 s, or reading a round over 5 s.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.ledger.copying import copy_ledger
from rlhf_dagster.labeling.store import Submission
from rlhf_dagster.records.schemas import COMPARISONS, table

ROUNDS = 10
EACH = 2
"""Annotations of a comparison."""
BARS = {"idle tick": 0.1, "tick after a new label": 0.1, "read a round": 5.0}
"""Seconds."""
RESPONSE = "a response of ordinary length, which somebody has to read, " * 3


def batch(round_key: str, comparisons: int) -> pd.DataFrame:
    rows = [
        {
            "comparison_id": f"{round_key}/{number}",
            "round": round_key,
            "kind": "pair",
            "purpose": "train",
            "role": "label",
            "prompt_id": f"prompt-{number}",
            "prompt": f"what is the meaning of {number}?",
            "completion_ids": [f"{round_key}/{number}/a", f"{round_key}/{number}/b"],
            "responses": [RESPONSE, RESPONSE + "."],
            "policy_ids": ["p", "p"],
            "display_order": [0, 1],
            "gold_ranks": None,
            "repeat_of": "",
            "labels_wanted": EACH,
            "project": "",
            "task_id": "",
        }
        for number in range(comparisons)
    ]
    return table(rows, COMPARISONS).to_pandas()


def answers(ids: list[str]) -> Iterator[Submission]:
    for number, comparison in enumerate(ids):
        for person in range(EACH):
            answer = {"choice": (number + person) % 2, "strength": 0.5, "reason": "it says more"}
            yield Submission(comparison, f"person-{(number + 7 * person) % 20}", answer, 9.5)


def new_answers(round_key: str, number: int) -> Iterator[Submission]:
    """Edits of labels of a round, each of another comparison."""
    for comparison in range(number):
        reason = str(time.time_ns())
        yield Submission(f"{round_key}/{comparison}", f"person-{comparison % 20}", {"choice": 1, "reason": reason}, 9.5)


def fill(store: EmbeddedLabelStore, annotations: int) -> None:
    for number in range(1, ROUNDS + 1):
        frame = batch(f"round-{number:04d}", annotations // ROUNDS // EACH)
        store.send(frame)
        ids = frame["comparison_id"].tolist()
        for start in range(0, len(ids), 500):
            store.submit_many(answers(ids[start : start + 500]))


def measure(place: str | Path, annotations: int, source: Path | None = None) -> dict[str, float]:
    """Seconds of each thing that is timed."""
    figures: dict[str, float] = {}

    def timed(
        name: str, call: Callable[[], object], repeats: int = 1, before: Callable[[], object] = lambda: None
    ) -> None:
        times, computing = [], []
        for _ in range(repeats):
            before()
            began, computed = time.perf_counter(), time.process_time()
            call()
            times.append(time.perf_counter() - began)
            computing.append(time.process_time() - computed)
        figures[name] = statistics.median(times)
        print(f"  {name:36}{figures[name]:10.3f} s, {statistics.median(computing):8.3f} s of it computing", flush=True)

    if source:
        timed("copy, and check the copy", lambda: copy_ledger(LedgerAddress.of(source), LedgerAddress.of(place)))
    store, last = EmbeddedLabelStore(place), f"round-{ROUNDS:04d}"
    if not store.position():
        timed(f"send and label, {annotations:,} annotations", lambda: fill(store, annotations))
    since = annotations - 1000
    new = lambda number: store.submit_many(new_answers(last, number))  # noqa: E731
    tick = lambda: EmbeddedLabelStore(place).count(last, "train", since)  # noqa: E731
    timed("first count of a round", tick)
    timed("idle tick", tick, 21)
    timed("tick after a new label", tick, 11, before=lambda: new(1))
    timed("tick after 500 new labels", tick, 3, before=lambda: new(500))
    timed("read a round", lambda: store.read(last, "train"), 3)
    timed("comparisons of a round", lambda: store.comparisons(last, "train"), 3)
    timed("read the last 1,000", lambda: store.read(last, "train", since), 5)
    timed("a new label", lambda: new(1), 5)
    return figures


def in_postgres(annotations: int, source: Path) -> dict[str, float]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from postgres import PostgresServer, require_postgres

    programs = require_postgres()
    with tempfile.TemporaryDirectory(prefix="rlhf-postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        try:
            return measure(server.address(), annotations, source)
        finally:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=1_000_000)
    parser.add_argument("--place", help="an address, in place of a file and a server of its own")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    figures: dict[str, dict[str, float]] = {}
    if options.place:
        figures["given"] = measure(options.place, options.annotations)
    else:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "ledger.sqlite")
            print("SQLite")
            figures["sqlite"] = measure(file, options.annotations)
            print("Postgres")
            figures["postgres"] = in_postgres(options.annotations, file)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")
    slow = [f"{name} ({kind})" for kind, each in figures.items() for name, bar in BARS.items() if each[name] > bar]
    raise SystemExit(f"too slow: {', '.join(slow)}" if slow else 0)


if __name__ == "__main__":
    main()
