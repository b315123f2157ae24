"""Which server answers: one at a time takes new requests, and those before it finish theirs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock, Thread

from rlhf_dagster.serving.backend import Backend


class Switchboard:
    """Hands out the current backend. ``start`` starts that of a policy, and raises UserError where it cannot."""

    def __init__(self, start: Callable[[str], Backend], first: str) -> None:
        self._start, self._lock = start, Lock()
        self._current = start(first)
        self._leaving: list[Thread] = []

    @property
    def policy_id(self) -> str:
        """The policy that answers."""
        return self._current.policy_id

    def lives(self) -> bool:
        return self._current.lives()

    @contextmanager
    def backend(self) -> Iterator[Backend]:
        """The current backend, which stays until the block ends, whatever becomes the current one meanwhile."""
        with self._lock:
            # Counted before another one can take its place: it is not idle in between.
            backend, request = self._current, self._current.request()
            request.__enter__()
        try:
            yield backend
        finally:
            request.__exit__(None, None, None)

    def change_to(self, policy_id: str) -> None:
        """Let another policy answer from now on; the one before stays where its server cannot be started."""
        new = self._start(policy_id)
        with self._lock:
            old, self._current = self._current, new
        leaving = Thread(target=old.stop_when_idle, daemon=True)
        leaving.start()
        self._leaving = [thread for thread in self._leaving if thread.is_alive()] + [leaving]

    def close(self) -> None:
        """Stop the current server, and wait for those before it."""
        self._current.stop()
        for thread in self._leaving:
            thread.join()
