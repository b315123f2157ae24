"""Python's search for garbage in cycles, which looks at all objects again and again while many are made."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_TIMES = 100


@contextmanager
def seldom_collected() -> Iterator[None]:
    """Look for cycles a hundred times less often: for work that makes millions of objects and hardly a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(before[0] * _TIMES, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
