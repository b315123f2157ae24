"""Worker processes as whoever uses them sees them: given a request, each tells what it does, and that it died."""

import itertools
import queue
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from rlhf_dagster.common.child_processes import plain_environment, python_command
from rlhf_dagster.common.files import writing
from rlhf_dagster.replication.running.requests import RunRequest, WorkerMessage, read_message, request_line

WORKER = (*python_command("-m"), "rlhf_dagster.replication.running.worker")
"""The command of a worker."""
WORKERS_LOG = "workers.log"
"""What libraries in the workers print."""
_Answers = queue.Queue[tuple[int, WorkerMessage | None]]
"""What the workers say, with the number of each; None where one died."""


@dataclass
class Pool:
    """Up to ``size`` workers. Each starts when it is first needed, and runs one variant after the other."""

    size: int
    folder: Path
    """Gets the workers' log."""
    inherited: Sequence[int] = ()
    """Open files that workers hold on to, such as a lock that must last as long as they write."""
    command: Sequence[str] = WORKER
    last_words: float = 10.0
    """Seconds for a worker to end once its input is closed; then it is killed."""
    _idle: list["_Worker"] = field(default_factory=list)
    _busy: dict[int, "_Worker"] = field(default_factory=dict)
    _said: _Answers = field(default_factory=queue.Queue)
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def has_room(self) -> bool:
        return len(self._busy) < self.size

    def start(self, request: RunRequest) -> int:
        """Give a request to a worker; returns the number by which :meth:`next` names it."""
        worker = self._idle.pop() if self._idle else self._new()
        worker.ask(request)
        self._busy[worker.number] = worker
        return worker.number

    def next(self) -> tuple[int, WorkerMessage | None]:
        """What a worker says next; None where it died. Waits for it."""
        while True:
            number, said = self._said.get()
            if number not in self._busy:  # it was idle when it died
                self._idle = [worker for worker in self._idle if worker.number != number or said is not None]
                continue
            if said is None:
                del self._busy[number]
            elif said.kind in ("done", "failed"):
                self._idle.append(self._busy.pop(number))
            return number, said

    def close(self) -> None:
        """End all workers, whatever they are doing."""
        workers = [*self._idle, *self._busy.values()]
        for worker in workers:
            worker.hang_up()
        for worker in workers:
            worker.wait(self.last_words)

    def _new(self) -> "_Worker":
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            log = (self.folder / WORKERS_LOG).open("ab")
        with log:
            return _Worker(self.command, next(self._numbers), log, self.inherited, self._said)


class _Worker:
    def __init__(
        self, command: Sequence[str], number: int, log: IO[bytes], inherited: Sequence[int], said: _Answers
    ) -> None:
        self.number = number
        # A session of its own: Ctrl-C in the terminal is for the process that the user started.
        self._process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            bufsize=1,
            encoding="utf-8",
            env=plain_environment() | {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"},
            pass_fds=tuple(inherited),
            start_new_session=True,
        )
        self._requests, self._answers = cast(IO[str], self._process.stdin), cast(IO[str], self._process.stdout)
        threading.Thread(target=self._listen, args=(said,), daemon=True).start()

    def ask(self, request: RunRequest) -> None:
        with suppress(BrokenPipeError):  # it died meanwhile, which its listener says
            self._requests.write(request_line(request))

    def hang_up(self) -> None:
        with suppress(BrokenPipeError):
            self._requests.close()

    def wait(self, seconds: float) -> None:
        """Wait until it has ended; it is killed after so many seconds."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listen(self, said: _Answers) -> None:
        for line in self._answers:
            if line.endswith("\n"):  # else it was killed while it wrote
                said.put((self.number, read_message(line)))
        self._process.wait()
        said.put((self.number, None))
