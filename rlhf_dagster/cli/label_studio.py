"""`rlhf label-studio`: the real server, for one loop, on this machine."""

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from rlhf_dagster.cli.which_loop import open_loop
from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio import server
from rlhf_dagster.labeling.label_studio.server import SERVER_FOLDER, is_local
from rlhf_dagster.loop.folder import LoopFolder

if TYPE_CHECKING:
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore


def install_label_studio() -> None:
    """Install the server unless it is there."""
    if server.is_installed():
        return
    print(f"Installing Label Studio {server.VERSION} into {server.environment_folder()} (1 GB, a minute or two) ...")
    sys.stdout.flush()
    server.install()


def up(folder: Path, port: int | None) -> None:
    """Serve Label Studio for a loop until Ctrl-C."""
    loop = open_loop(folder)
    url = loop.config.label_store.url
    if not is_local(url):
        raise UserError(f"label_store.url is {url}, which is not this machine; start Label Studio there.")
    stop_when_asked()
    install_label_studio()
    with server.running(loop.root / SERVER_FOLDER, port or port_of(url)) as running:
        show(loop, running)
        try:
            running.process.wait()
        except KeyboardInterrupt:
            return
        raise UserError(f"Label Studio stopped by itself; {running.folder / server.LOG} says why.")


def accept_deletions(folder: Path, round_key: str | None, by: str) -> None:
    """Record what is missing of a round's labels as deleted."""
    from rlhf_dagster.cli.loops import _round
    from rlhf_dagster.cli.runner import LoopRunner

    store, key = _store_of(folder), _round(LoopRunner.open(open_loop(folder)), round_key)
    deleted = store.accept_deletions(key, by)
    print(f"{key}: {deleted:,} labels are recorded as deleted, on the word of {by}.")


def rejoin_server(folder: Path, by: str) -> None:
    """Go on with the server that is there: set back, moved, or new."""
    store = _store_of(folder)
    found, sent = store.rejoin(by)
    print(f"Going on with Label Studio at {found.address}: {found.database}.")
    print(f"  {len(found.found):,} projects of rounds without a decision are there, and were read from the beginning")
    print(f"  {len(found.lost):,} are not; their labels stay on record and count")
    print(f"  {sent:,} comparisons that had no task there, and want labels, were sent again")


def _store_of(folder: Path) -> "LabelStudioStore":
    from rlhf_dagster.labeling.label_studio.store import LabelStudioStore

    store = open_loop(folder).label_store
    if not isinstance(store, LabelStudioStore):
        raise UserError(f"{folder}: label_store.kind is not label_studio, so there is no server to ask.")
    return store


def stop_when_asked() -> None:
    """Have SIGTERM end this process as Ctrl-C does, so that its children end too; even if both signals were ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def port_of(url: str) -> int:
    """The port of an address; 80 or 443 where it names none."""
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


def show(loop: LoopFolder, running: server.Server) -> None:
    """Where the server is, how to log in, how to invite people, and what to do next."""
    credentials, folder = server.local_credentials(running.folder) or {}, running.folder
    print(f"Label Studio of the loop {loop.config.name}: {running.url}  (Ctrl-C stops it; log: {folder / server.LOG})")
    print(f"  log in as  {credentials['LABEL_STUDIO_USERNAME']}; the password is in {folder / server.CREDENTIALS}")
    print(f"  invite     {running.url}/organization, Add Members: nobody can join without the link that is there")
    settings = loop.config.label_store
    given = os.environ.get(settings.token_variable)
    if given and given != credentials["LABEL_STUDIO_API_KEY"]:
        print(f"  token      {settings.token_variable} is set, and used instead of this server's own token")
    if settings.kind != "label_studio":
        print(f"  next       set label_store.kind to label_studio in {loop.root}/loop.yaml, so that tasks come here")
    elif running.url != settings.url:
        print(f"  next       set label_store.url in {loop.root}/loop.yaml to {running.url}, so that tasks come here")
    elif not loop.config.automation.running:
        print(f"  next       rlhf run collect_round {loop.option}  (sends a round's comparisons here)")
    sys.stdout.flush()
