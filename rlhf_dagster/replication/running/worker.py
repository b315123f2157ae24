"""A process that runs variants one after the other: requests on standard input, what happens on standard output.

``python -m rlhf_dagster.replication.running.worker``. It ends, whatever it is doing, when standard input closes, which
also happens when the process that started it is killed. What it was making is then made by whoever runs the same again,
from the last state of its training.
"""

import os
import queue
import sys
import threading
from typing import TextIO

from rlhf_dagster.replication.running.requests import RunRequest, WorkerMessage, message_line, read_request


def main() -> None:
    out, requests = _messages(), _requests()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    while True:
        _answer(requests.get(), out)


def _messages() -> TextIO:
    """Standard output for messages alone: what libraries print goes to standard error."""
    out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return out


def _requests() -> "queue.Queue[RunRequest]":
    found: queue.Queue[RunRequest] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            found.put(read_request(line))
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return found


def _answer(request: RunRequest, out: TextIO) -> None:
    from rlhf_dagster.errors import UserError
    from rlhf_dagster.replication.running.run import run_variant

    def say(said: WorkerMessage) -> None:
        out.write(message_line(said))

    try:
        run_variant(request, say)
    except UserError as error:
        say(WorkerMessage("failed", text=str(error)))
    except Exception as error:  # one variant's failure is not that of the others
        sys.excepthook(type(error), error, error.__traceback__)
        say(WorkerMessage("failed", text=f"{type(error).__name__}: {error}; the log of the worker says more"))
    else:
        say(WorkerMessage("done"))


if __name__ == "__main__":
    main()
