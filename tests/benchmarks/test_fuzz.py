"""A few odd texts for every reader, and that a fault would be seen; `python -m benchmarks.fuzz` goes on for minutes."""

from itertools import islice
from pathlib import Path
from random import Random

import pytest

from benchmarks.fuzz.__main__ import fault_in, faults_of
from benchmarks.fuzz.mutations import mutated
from benchmarks.fuzz.readers import Reader, readers

READERS = readers()
SLOW = {"templates"}
"""Starts a process that imports transformers."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in SLOW else name for name in READERS]
)
def test_odd_texts_are_read_or_refused_in_a_sentence(name: str) -> None:
    faults = [fault for fault in islice(faults_of(READERS[name], seed=0), 15) if fault is not None]
    assert [(fault.kind, fault.text[:200], fault.trace) for fault in faults] == []


@pytest.mark.long
@pytest.mark.parametrize("name", READERS)
def test_more_odd_texts(name: str) -> None:
    faults = [fault for fault in islice(faults_of(READERS[name], seed=1), 1000) if fault is not None]
    assert [(fault.kind, fault.text[:200], fault.trace) for fault in faults] == []


@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_what_texts_are_made_from_is_right(reader: Reader) -> None:
    for seed in reader.seeds:
        assert fault_in(reader, seed) is None


def test_a_fault_is_seen_with_its_place() -> None:
    def read(data: bytes, folder: Path) -> None:
        raise KeyError(data)

    fault = fault_in(Reader("broken", [b"a"], read), b"a")
    assert fault is not None
    assert fault.kind.startswith("KeyError at ")


def test_mutations_differ_and_come_again_with_their_seed() -> None:
    def some(seed: int) -> list[bytes]:
        random = Random(seed)
        return [mutated(b'{"a": [1, 2, {"b": "c"}]}', random) for _ in range(50)]

    assert some(0) == some(0)
    assert len(set(some(0))) > 40
    assert some(0) != some(1)
