"""Eight processes write to a ledger, one more kills its writer and starts it again, and a reader follows by position.

    python -m benchmarks.ledger_writers [--annotations 100000] [--place ADDRESS] [--kills 3] [--seed 0]

The writers label two rounds, in batches of 1 to 100, until the ledger holds so many annotations. A ninth writer is
killed on the way and says the same again each time. The reader reads each round on from the position that it has
reached. At the end it must have seen each annotation version of each round once and in order, and the ledger must hold
each answer of each writer once. Without ``--place`` it is a file, and then a schema of a Postgres server that is
started for it. The exit code is 1 where anything is missed or there twice.
"""

import argparse
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.ledger import batch
from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.store import Submission

ROUNDS = ("round-0001", "round-0002")
WRITERS = 8
CONTEXT = multiprocessing.get_context("spawn")


def write(place: str, writer: int, number: int, seed: int, barrier: Any = None) -> None:
    """Label ``number`` comparisons, of the rounds in turns."""
    store, draw, done = EmbeddedLabelStore(place), random.Random(seed * 100 + writer), 0
    if barrier:
        barrier.wait()
    while done < number:
        size = min(draw.randint(1, 100), number - done)
        store.submit_many(answers(writer, range(done, done + size)))
        done += size


def answers(writer: int, numbers: range) -> Iterator[Submission]:
    for number in numbers:
        comparison = f"{ROUNDS[number % 2]}/{number // 2}"
        yield Submission(comparison, f"writer-{writer}", {"choice": number % 2, "strength": 0.5}, 2.0)


class Follower:
    """Reads each round on from the position that was reached."""

    def __init__(self, store: EmbeddedLabelStore) -> None:
        self.store = store
        self.reached = dict.fromkeys(ROUNDS, 0)
        self.seen: dict[str, list[int]] = {key: [] for key in ROUNDS}
        self.looks = 0

    def look(self) -> None:
        self.looks += 1
        for key in ROUNDS:
            found, self.reached[key] = self.store.read(key, "train", self.reached[key])
            self.seen[key] += [annotation.position for annotation in found]


def run(place: str, annotations: int, kills: int, seed: int) -> list[str]:
    """Let them write; sentences about what went wrong, none where all is well."""
    store, each = EmbeddedLabelStore(place), annotations // WRITERS
    for key in ROUNDS:
        store.send(batch(key, (each + 1) // 2))
    barrier, follower = CONTEXT.Barrier(WRITERS), Follower(store)
    writers = [CONTEXT.Process(target=write, args=(place, n, each, seed, barrier)) for n in range(WRITERS)]
    for writer in writers:
        writer.start()
    killer, draw, killed = None, random.Random(seed), 0
    began, dies_at = time.monotonic(), 0.0
    while any(writer.is_alive() for writer in writers):
        follower.look()
        if killed < kills and killer is None:
            killer = CONTEXT.Process(target=write, args=(place, WRITERS, each, seed))
            killer.start()
            dies_at = time.monotonic() + draw.uniform(1.5, 6)
        elif killer is not None and killed < kills and time.monotonic() > dies_at:
            killer.kill()
            killer.join()
            killer, killed = None, killed + 1
    if killer is not None:
        killer.kill()
        killer.join()
    write(place, WRITERS, each, seed)
    follower.look()
    print(f"{time.monotonic() - began:.0f} s, {killed} kills, {follower.looks} looks", flush=True)
    failed = [f"a writer ended with {writer.exitcode}" for writer in writers if writer.exitcode]
    return [*failed, *wrong_reading(follower), *wrong_answers(store, each)]


def wrong_reading(follower: Follower) -> list[str]:
    seen = sorted(position for key in ROUNDS for position in follower.seen[key])
    wrong = [] if seen == list(range(1, follower.store.position() + 1)) else ["positions were missed, or seen twice"]
    held = {key: [annotation.position for annotation in follower.store.read(key, "train")[0]] for key in ROUNDS}
    return wrong + [f"{key} was not read as it is" for key in ROUNDS if follower.seen[key] != held[key]]


def wrong_answers(store: EmbeddedLabelStore, each: int) -> list[str]:
    held = Counter((one.annotator, one.comparison_id) for key in ROUNDS for one in store.read(key, "train")[0])
    given = Counter(
        (one.annotator, one.comparison_id) for writer in range(WRITERS + 1) for one in answers(writer, range(each))
    )
    return [] if held == given else [f"{len(given - held)} answers are missing, {len(held - given)} are there twice"]


def in_postgres(annotations: int, kills: int, seed: int) -> list[str]:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from postgres import PostgresServer, require_postgres

    programs = require_postgres()
    with tempfile.TemporaryDirectory(prefix="rlhf-postgres-") as folder:
        server = PostgresServer(programs, Path(folder))
        server.start()
        try:
            return run(server.address(), annotations, kills, seed)
        finally:
            server.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotations", type=int, default=100_000)
    parser.add_argument("--place", help="an address, in place of a file and a server of its own")
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    given = (options.annotations, options.kills, options.seed)
    if options.place:
        wrong = {"given": run(options.place, *given)}
    else:
        with tempfile.TemporaryDirectory() as folder:
            wrong = {"SQLite": run(f"sqlite:///{Path(folder).resolve()}/ledger.sqlite", *given)}
        wrong["Postgres"] = in_postgres(*given)
    for kind, found in wrong.items():
        print(f"{kind}: {WRITERS} writers, {options.annotations:,} annotations: {found or 'none missed, none twice'}")
    return 1 if any(wrong.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
