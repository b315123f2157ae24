"""`rlhf serve`: the champion behind an OpenAI-compatible address, until Ctrl-C."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import cast, get_args

from rlhf_dagster.cli.label_studio import stop_when_asked
from rlhf_dagster.cli.which_loop import open_to_read
from rlhf_dagster.common.ports import LOOPBACK, require_free
from rlhf_dagster.common.user_hash import users_key
from rlhf_dagster.errors import UserError
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.inference.named_policy import CHAMPION, named_policy
from rlhf_dagster.serving.backend import BackendKind, command_of
from rlhf_dagster.serving.following import follow_champion, starter
from rlhf_dagster.serving.front import make_front
from rlhf_dagster.serving.log import ConversationLog
from rlhf_dagster.serving.switchboard import Switchboard

LOOK_EVERY = 2.0
"""Seconds between looks at who is the champion."""


def serve_champion(folder: Path, port: int, kind: str, options: Sequence[str], log: Path | None = None) -> None:
    """Serve until Ctrl-C, and log what is asked and answered in ``log`` where one is given.

    Raises UserError where the first server cannot be started, or the log cannot be written.
    """
    if kind not in get_args(BackendKind):
        raise UserError(f"--backend {kind}: choose one of {', '.join(get_args(BackendKind))}.")
    command, loop = command_of(cast("BackendKind", kind), options), open_to_read(folder)
    champion = named_policy(loop, CHAMPION).model_id
    require_free(port, f"--port {port}")
    conversations = ConversationLog(log, users_key(loop.root), _say) if log else None
    stop_when_asked()
    # Folders with merged adapters go last, when no server reads them any more.
    with ExitStack() as merged, ExitStack() as stack:
        _say(f"{champion} is loaded by {kind} ...")
        board = Switchboard(starter(loop, command, merged), champion)
        stack.callback(board.close)
        front = stack.enter_context(make_front(board, port, kind == "vllm", conversations))
        stack.enter_context(_following(loop, board))
        if log:
            _say(f"What is asked and answered is logged in {log}, with users by a keyed hash.")
        _say(f"{champion} answers at http://{LOOPBACK}:{port}/v1 as `{CHAMPION}` (Ctrl-C ends it).")
        try:
            front.serve_forever()
        except KeyboardInterrupt:
            _say("Stopped.")


@contextmanager
def _following(loop: LoopFolder, board: Switchboard) -> Iterator[None]:
    """Follow the champion in the block; a server that is starting when it ends is waited for, so that it is stopped."""
    ended = Event()
    follower = Thread(target=follow_champion, args=(loop, board, ended, LOOK_EVERY, _say))
    follower.start()
    try:
        yield
    finally:
        ended.set()
        follower.join()


def _say(line: str) -> None:
    print(line, flush=True)
