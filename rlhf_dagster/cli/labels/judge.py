"""`rlhf label`: one person judges a loop's comparisons, in the browser or in the terminal."""

import sys
import webbrowser
from contextlib import suppress
from pathlib import Path

from rlhf_dagster.cli.which_loop import open_loop
from rlhf_dagster.common.ports import require_free
from rlhf_dagster.label_page.desk import Desk, command_after

SEVERAL = (
    "For several people, pages with their own logins and a record of who saw what: `label_store: {kind: label_studio}`."
)


def ask_person(folder: Path, round_key: str | None, by: str, terminal: bool, port: int, browser: bool) -> None:
    """Ask one person until nothing is left, or until Ctrl-C."""
    loop = open_loop(folder)
    desk = Desk(loop, by, round_key)
    if loop.config.label_store.simulated_annotators and loop.config.has_task:
        print("label_store.simulated_annotators is on: they answer a batch when it is sent, so nothing may be left.")
    if terminal:
        from rlhf_dagster.label_page.terminal import label_in_terminal

        given = label_in_terminal(desk)
        print(
            f"{given:,} {'comparison' if given == 1 else 'comparisons'} judged by {by} (on record as {desk.annotator})."
        )
    else:
        _serve(desk, by, port, browser)


def _serve(desk: Desk, by: str, port: int, browser: bool) -> None:
    from rlhf_dagster.cli.label_studio import stop_when_asked
    from rlhf_dagster.label_page.server import make_label_server

    if port:
        require_free(port, f"--port {port}")
    server, address = make_label_server(desk, port)
    stop_when_asked()
    print(f"Label page of the loop {desk.loop.config.name} for {by}, on this machine alone (Ctrl-C stops it):")
    print(f"  {address}")
    print(SEVERAL)
    sys.stdout.flush()
    if browser:
        webbrowser.open(address)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    print(f"What was judged is kept. What comes next: {command_after(desk.loop, desk.batches())}")
