"""Progress of a stage: to the run's log every so often, and to whoever listens in this process."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

Listener = Callable[[str, int, int, dict[str, float]], None]
"""Of a stage: its name, how many steps are done and of how many (0: not known), and its numbers."""
_listeners: list[Listener] = []


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener(stage, step, total, numbers)`` for all progress made in this process inside the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell_listeners(stage: str, step: int, total: int, numbers: dict[str, float]) -> None:
    for listener in _listeners:
        listener(stage, step, total, numbers)


@dataclass
class Progress:
    """Call it with each step; it writes a log line at most every ``every`` seconds, and at the end."""

    stage: str
    log: Callable[[str], object]
    every: float = 10.0
    _last: float = field(default_factory=time.monotonic)

    def __call__(self, step: int, total: int, **numbers: float) -> None:
        tell_listeners(self.stage, step, total, numbers)
        if step >= total or time.monotonic() - self._last >= self.every:
            self._last = time.monotonic()
            self.log(f"{self.stage}: {step} of {total}{describe(numbers)}")


def describe(numbers: dict[str, float]) -> str:
    """The numbers as a short tail for a line, such as ``, loss 1.204, kl 3.1``."""
    return "".join(f", {name.replace('_', ' ')} {value:.4g}" for name, value in numbers.items())
