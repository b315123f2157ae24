"""Several writers, one reader by position, and writers that are killed."""

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from rlhf_dagster.labeling.embedded import EmbeddedLabelStore
from rlhf_dagster.labeling.ledger.address import LedgerAddress
from rlhf_dagster.labeling.store import Submission

ROUNDS = ("round-0001", "round-0002")
WRITERS, EACH = 8, 40
CONTEXT = multiprocessing.get_context("fork")


def _write(place: LedgerAddress, writer: int, ids: list[str], barrier) -> None:
    store = EmbeddedLabelStore(place)
    barrier.wait()
    for number in range(EACH):
        store.submit(ids[number % len(ids)], f"writer-{writer}", {"choice": 0, "reason": str(number)})


def test_a_reader_by_position_misses_nothing_of_eight_writers(place, ledger, batch) -> None:
    frames = {key: batch(6, key) for key in ROUNDS}
    for frame in frames.values():
        ledger.send(frame)
    barrier = CONTEXT.Barrier(WRITERS)
    arguments = [(place, n, list(frames[ROUNDS[n % 2]]["comparison_id"]), barrier) for n in range(WRITERS)]
    writers = [CONTEXT.Process(target=_write, args=each) for each in arguments]
    for writer in writers:
        writer.start()
    reached = dict.fromkeys(ROUNDS, 0)
    seen: dict[str, list[int]] = {key: [] for key in ROUNDS}
    while True:
        ended = not any(writer.is_alive() for writer in writers)
        position = ledger.position()
        for key in ROUNDS:
            found, reached[key] = ledger.read(key, "train", reached[key])
            seen[key] += [version.position for version in found]
        # Whoever has seen a position of one round has seen all earlier ones of every round.
        assert set(range(1, position + 1)) <= {one for key in ROUNDS for one in seen[key]}
        if ended:
            break
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    everything = sorted(position for key in ROUNDS for position in seen[key])
    assert everything == list(range(1, WRITERS * EACH + 1))
    for key in ROUNDS:
        assert seen[key] == [version.position for version in ledger.read(key, "train")[0]]


def _send(place: LedgerAddress, parts: list, done: Path) -> None:
    store = EmbeddedLabelStore(place)
    for part in parts:
        store.send(part)
        store.submit_many([Submission(key, "ann", {"choice": 0}) for key in part["comparison_id"]])
    done.touch()


@pytest.mark.parametrize("number", [4000, pytest.param(10_000, marks=pytest.mark.long)])
def test_thousands_sent_by_writers_that_are_killed_are_there_once(place, ledger, batch, tmp_path, number: int) -> None:
    frame, size = batch(number), number // 40
    parts = [frame.iloc[start : start + size] for start in range(0, len(frame), size)]
    rng = random.Random(0)
    for _ in range(3):
        before = ledger.position()
        process = CONTEXT.Process(target=_send, args=(place, parts, tmp_path / "done"))
        process.start()
        while ledger.position() == before and process.is_alive():
            time.sleep(0.01)
        time.sleep(rng.random() / 4 * number / 10_000)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL
    assert not (tmp_path / "done").exists()
    _send(place, parts, tmp_path / "done")
    assert sorted(ledger.comparisons("round-0001", "train")["comparison_id"]) == sorted(frame["comparison_id"])
    versions, position = ledger.read("round-0001", "train")
    assert sorted(version.comparison_id for version in versions) == sorted(frame["comparison_id"])
    assert [version.position for version in versions] == list(range(1, position + 1))
