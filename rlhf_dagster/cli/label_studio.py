"""`rlhf label-studio`: the real server, for one loop, on this machine."""

import os
import signal
import sys
from pathlib import Path
from urllib.parse import urlsplit

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio import server
from rlhf_dagster.labeling.label_studio.server import SERVER_FOLDER, is_local
from rlhf_dagster.loop.folder import LoopFolder


def install_label_studio() -> None:
    """Install the server unless it is there."""
    if server.is_installed():
        return
    print(f"Installing Label Studio {server.VERSION} into {server.environment_folder()} (1 GB, a minute or two) ...")
    sys.stdout.flush()
    server.install()


def up(folder: Path, port: int | None) -> None:
    """Serve Label Studio for a loop until Ctrl-C."""
    loop = LoopFolder.open(folder)
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
        print(f"  next       rlhf run collect_round --loop {loop.root}  (sends a round's comparisons here)")
    sys.stdout.flush()
