"""A loop that is served: its front, and stubs in place of the servers behind it."""

import http.client
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import Any

from kept_models import loop_of_policies

from rlhf_dagster.common.user_hash import users_key
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.serving.following import follow_champion, starter
from rlhf_dagster.serving.front import POLICY_HEADER, make_front
from rlhf_dagster.serving.log import ConversationLog
from rlhf_dagster.serving.switchboard import Switchboard

STUB = Path(__file__).parent / "serving" / "stub_backend.py"


@dataclass
class Served:
    loop: LoopFolder
    board: Switchboard
    port: int
    go: Path
    broken: Event = field(default_factory=Event)
    """Set: servers that are started from now on end at once."""
    said: list[str] = field(default_factory=list)

    def ask(self, headers: dict[str, str] | None = None, path: str = "/v1/completions", **values: Any) -> "Said":
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        given = {"Content-Type": "application/json"} | (headers or {})
        connection.request("POST", path, json.dumps({"prompt": "Hi"} | values), given)
        answer = connection.getresponse()
        found = Said(answer.status, answer.headers.get(POLICY_HEADER, ""), answer.read().decode())
        connection.close()
        return found


@dataclass(frozen=True)
class Said:
    status: int
    policy: str
    text: str


def until(true: Callable[[], bool]) -> None:
    while not true():
        time.sleep(0.02)


@contextmanager
def serving_loop(folder: Path, log: Path | None = None) -> Iterator[Served]:
    """``log``: where conversations are logged."""
    loop, go, broken = loop_of_policies(folder / "loop"), folder / "go", Event()

    def command(_: Path, port: int, policy_id: str) -> list[str]:
        if broken.is_set():
            return [sys.executable, "-S", "-c", "print('no room on the GPU.'); raise SystemExit(1)"]
        return [sys.executable, "-S", str(STUB), str(port), policy_id, str(go)]

    with ExitStack() as stack:
        start = starter(loop, command, stack)
        board = Switchboard(start, loop.registry.champion().policy_id)  # type: ignore[union-attr]
        stack.callback(board.close)
        said: list[str] = []
        kept = ConversationLog(log, users_key(loop.root), said.append) if log else None
        front = stack.enter_context(make_front(board, 0, named_to_backend=True, log=kept))
        served = Served(loop, board, front.server_port, go, broken, said)
        ended = Event()
        threads = [
            Thread(target=front.serve_forever, args=(0.05,)),
            Thread(target=follow_champion, args=(loop, board, ended, 0.05, served.said.append)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield served
        finally:
            go.touch()
            ended.set()
            front.shutdown()
            for thread in threads:
                thread.join()
