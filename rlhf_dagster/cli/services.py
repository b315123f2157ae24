"""Services kept running: started in order, started again when they die, stopped together."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from rlhf_dagster.common.child_processes import end_with_parent
from rlhf_dagster.errors import UserError

_MOMENT = 2.0
"""Seconds after which a person is told what is waited for."""
_GRACE = 15.0
"""Seconds that a service has to stop by itself."""
_POLL = 0.5
SHORTEST_LIFE = 60.0
"""Seconds after which a service that dies is started again at once; one that dies sooner waits longer each time."""
LONGEST_PAUSE = 30.0
LOOK_SECONDS = 5.0
"""Seconds between two looks at the child of a service, for which all processes are listed."""


@dataclass
class Service:
    """A process that should always run. ``start`` starts it; ``log`` is the file that holds its output."""

    name: str
    start: Callable[[], subprocess.Popen[bytes]]
    log: Path
    is_ready: Callable[[], bool] = lambda: True
    """Whether the services that come after this one can start."""
    works_in_child: bool = False
    """Whether a child of the process does the work, without which the service is dead although its process is not."""
    process: subprocess.Popen[bytes] | None = None
    pause: float = 0.0
    started: float = 0.0
    due: float = field(default=0.0)
    """When it is to be started, by the monotonic clock."""
    had_child: bool = False
    next_look: float = 0.0

    def launch(self) -> None:
        self.process, self.started, self.had_child = self.start(), time.monotonic(), False

    def died(self) -> int | None:
        """Its exit code where it is not running; None while it is."""
        return None if self.process is None else self.process.poll()

    def has_lost_child(self) -> bool:
        """Whether the child that does the work was there and is gone."""
        now = time.monotonic()
        if not self.works_in_child or self.process is None or now < self.next_look:
            return False
        self.next_look = now + LOOK_SECONDS
        children = _living_children(self.process.pid)
        self.had_child = self.had_child or children > 0
        return self.had_child and not children


def listens(host: str, port: int) -> Callable[[], bool]:
    """Whether somebody takes connections at a port."""

    def look() -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex((host, port)) == 0

    return look


def logged(command: Sequence[str], log: Path, environment: dict[str, str]) -> Callable[[], subprocess.Popen[bytes]]:
    """Starts ``command`` with its output in ``log``; it ends when we are killed, and our Ctrl-C does not reach it."""

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509  # we have no threads here
            )

    return start


def start_all(services: Sequence[Service], say: Callable[[str], None]) -> None:
    """Start services one after another, each when those before it are ready; UserError where one does not start.

    ``say`` is told of one that takes longer than a moment.
    """
    for service in services:
        service.launch()
        waiting = False
        while not service.is_ready():
            if not waiting and time.monotonic() - service.started > _MOMENT:
                waiting = True
                say(f"Waiting for the {service.name} to start ...")
            if service.died() is not None:
                raise UserError(f"The {service.name} did not start; {service.log} says why.")
            time.sleep(_POLL)


def keep_running(services: Sequence[Service], say: Callable[[str], None]) -> None:
    """Start again whatever dies, until interrupted."""
    while True:
        for service in services:
            _look_after(service, say)
        time.sleep(_POLL)


def stop_all(services: Sequence[Service]) -> None:
    """Ask all to stop, in the opposite order, and kill what is left after the grace."""
    for service in reversed(services):
        if service.process and service.died() is None:
            service.process.send_signal(signal.SIGINT)
    end = time.monotonic() + _GRACE
    for service in services:
        if service.process is None:
            continue
        try:
            service.process.wait(max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait()


def _look_after(service: Service, say: Callable[[str], None]) -> None:
    now, code = time.monotonic(), service.died()
    if service.process is not None and code is None:
        if service.has_lost_child():
            service.process.kill()
        return
    if service.process is not None:
        lived = now - service.started
        service.pause = 0.0 if lived >= SHORTEST_LIFE else min(LONGEST_PAUSE, max(1.0, 2 * service.pause))
        service.process, service.due = None, now + service.pause
        how = f"killed by signal {-(code or 0)}" if code is not None and code < 0 else f"exit code {code}"
        say(f"The {service.name} ended ({how}); it is started again. Its log: {service.log}")
    if now >= service.due:
        service.launch()


def _living_children(pid: int) -> int:
    """How many children of a process are there, but for those that have ended and are not waited for."""
    with suppress(psutil.Error):
        return sum(child.status() != psutil.STATUS_ZOMBIE for child in psutil.Process(pid).children())
    return 0
