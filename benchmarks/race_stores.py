"""Twelve processes race on one store for a pin, a promotion, an entry and a counter, round after round.

    python -m benchmarks.race_stores ADDRESS [--rounds 200] [--writers 12]

``ADDRESS`` is an empty folder or a bucket. In each round exactly one writer gets the pin, every promotion that was
confirmed is in the history once and in order, and of the entries and of the counter none is lost.
"""

import argparse
import multiprocessing
import queue
import sys
import time
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from typing import Any

from rlhf_dagster.lineage.journal import Journal
from rlhf_dagster.lineage.registry import PolicyRegistry
from rlhf_dagster.storage.base import update
from rlhf_dagster.storage.known import open_store

Said = tuple[int, int, bool, bool]
"""Round, writer, whether it got the pin, whether its policy was promoted."""


def race(address: str, writers: int, rounds: int) -> list[str]:
    """Let the writers race; sentences about what went wrong, none where all is well."""
    registry = PolicyRegistry(open_store(address))
    for writer in range(writers):
        for number in range(rounds):
            registry.register(f"p-{writer}-{number}", "models/x", "ppo", f"round-{number:04}")
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(writers), context.Queue()
    workers = [
        context.Process(target=_write, args=(address, writer, rounds, barrier, results)) for writer in range(writers)
    ]
    for worker in workers:
        worker.start()
    said = _heard(results, workers, writers * rounds)
    for worker in workers:
        worker.join()
    ended = [worker.exitcode for worker in workers]
    if any(ended):
        return [f"writer {number} ended with {code}" for number, code in enumerate(ended) if code]
    return [*_wrong_winners(said, rounds), *_wrong_history(registry, said), *_lost(address, said)]


def _heard(results: Any, workers: Sequence[BaseProcess], wanted: int) -> list[Said]:
    """What the writers say; where one has failed the others are ended, since they wait for it."""
    said: list[Said] = []
    while len(said) < wanted:
        try:
            said.append(results.get(timeout=1))
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                for worker in workers:
                    worker.terminate()
                break
    return said


def _write(address: str, writer: int, rounds: int, barrier: Any, results: Any) -> None:
    store = open_store(address)
    registry, journal = PolicyRegistry(store), Journal(store, "notes")
    for number in range(rounds):
        barrier.wait()
        pinned = store.create(f"pins/{number:06}", f"writer {writer}".encode())
        promoted = registry.promote(f"p-{writer}-{number}", f"round-{number:04}", "test", "race").promoted
        journal.append(lambda _, number=number: {"writer": writer, "number": number})  # type: ignore[misc]
        update(store, "counter", lambda data: str(int(data or b"0") + 1).encode())
        results.put((number, writer, pinned, promoted))


def _wrong_winners(said: list[Said], rounds: int) -> list[str]:
    winners = [sum(pinned for at, _, pinned, _ in said if at == number) for number in range(rounds)]
    return [f"round {number} has {count} pins" for number, count in enumerate(winners) if count != 1]


def _wrong_history(registry: PolicyRegistry, said: list[Said]) -> list[str]:
    history = [entry.policy_id for entry in registry.history()]
    confirmed = {f"p-{writer}-{number}" for number, writer, _, won in said if won}
    rounds = [entry.round_key for entry in registry.history()]
    wrong = [] if sorted(history) == sorted(confirmed) else ["the history is not what was confirmed"]
    return wrong + ([] if rounds == sorted(rounds) else ["the history is out of order"])


def _lost(address: str, said: list[Said]) -> list[str]:
    store = open_store(address)
    notes = sorted((note["writer"], note["number"]) for note in Journal(store, "notes").entries())
    counter = store.get("counter")
    wrong = [] if notes == sorted((writer, number) for number, writer, _, _ in said) else ["entries are lost or twice"]
    if counter is None or int(counter.data) != len(said):
        wrong.append(f"the counter says {counter and counter.data!r} of {len(said)}")
    return wrong + Journal(store, "notes").problems()


def main() -> int:
    parser = argparse.ArgumentParser(description="Processes race on one store.")
    parser.add_argument("address")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--writers", type=int, default=12)
    options = parser.parse_args()
    began = time.monotonic()
    wrong = race(options.address, options.writers, options.rounds)
    print(
        f"{options.writers} writers, {options.rounds} rounds, {time.monotonic() - began:.0f} s: {wrong or 'none lost'}"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
