"""Having the champion answer: its server is started when it becomes the champion, by promotion or by rollback."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from rlhf_dagster.errors import UserError
from rlhf_dagster.lineage.model_folders import holds_adapters
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.inference.named_policy import CHAMPION, named_policy
from rlhf_dagster.publishing.contents import write_whole
from rlhf_dagster.serving.backend import Backend, Command
from rlhf_dagster.serving.switchboard import Switchboard

SERVE_LOG = Path("logs", "serve.log")
AGAIN = 60.0
"""Seconds after which a server that could not be started is tried again."""
Announce = Callable[[str], object]


def starter(loop: LoopFolder, command: Command, merged: ExitStack) -> Callable[[str], Backend]:
    """What starts the server of a policy by its id. Folders with merged adapters stay until ``merged`` is closed."""

    def start(policy_id: str) -> Backend:
        return Backend(policy_id, _plain(loop.policy(policy_id), merged), command, loop.root / SERVE_LOG)

    return start


def follow_champion(loop: LoopFolder, board: Switchboard, ended: Event, every: float, say: Announce) -> None:
    """Look ``every`` so many seconds who is the champion, and have it answer, until ``ended`` is set.

    Where that is not possible the policy before goes on, and ``say`` is told why.
    """
    tried, at, said = "", 0.0, ""
    while not ended.wait(every):
        try:
            wanted = named_policy(loop, CHAMPION).model_id
            answers = wanted == board.policy_id and board.lives()
            if answers or (wanted == tried and time.monotonic() - at < AGAIN):
                continue
            tried, at = wanted, time.monotonic()
            board.change_to(wanted)
            tried = said = ""
            say(f"{wanted} answers from now on.")
        except UserError as error:
            if str(error) != said:
                said = str(error)
                say(f"{board.policy_id} goes on: {said}")


def _plain(policy: Checkpoint, merged: ExitStack) -> Path:
    """The policy's folder, or one with its adapters added into the weights: servers know plain models."""
    if not holds_adapters(policy.folder):
        return policy.folder
    folder = Path(merged.enter_context(TemporaryDirectory(prefix="rlhf-serve-")))
    write_whole(policy, folder)
    return folder
