"""10,000 comparisons into Label Studio, the server and the sender each killed three times on the way.

    python benchmarks/kill_label_studio.py [--comparisons 10000] [--kills 3]

Says how many tasks the server holds in the end, and how many comparisons have more than one. Exit code 1 if a
comparison is missing or there twice.
"""

import argparse
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
from label_studio import SETTINGS, comparisons

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.server import Server, local_credentials, running
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore


def send(folder: Path, url: str, token: str, frame: pd.DataFrame) -> None:
    store = LabelStudioStore(
        folder / "l.sqlite",
        url,
        client=lambda: LabelStudioClient(url, token, 60),
        settings=SETTINGS,
        loop_name="kill",
    )
    try:
        store.send(frame)
    except UserError as error:
        print(f"  sender: {error}")
        sys.exit(2)


def held(client: LabelStudioClient) -> Counter[str]:
    """How often each comparison has a task on the server."""
    found: Counter[str] = Counter()
    for project in client.projects("kill"):
        after = 0
        while page := client.task_page(project["id"], after, full=False):
            after = page[-1]["id"]
            found.update(task["data"]["comparison"] for task in page)
    return found


def wait_for(client: LabelStudioClient, least: int, sender: BaseProcess) -> int:
    """Wait until the server holds ``least`` tasks; how many it holds then."""
    while sender.is_alive():
        there = sum(client.probe(project["id"])[0] for project in client.projects("kill"))
        if there >= least:
            return there
        time.sleep(0.02)
    raise SystemExit("the sender was done before it could be killed; send more comparisons")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--comparisons", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--port", type=int, default=18098)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, frame = random.Random(options.seed), comparisons(options.comparisons)
    victims = ["server", "sender"] * options.kills
    rng.shuffle(victims)
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(running(folder / "server", options.port))
        token = (local_credentials(server.folder) or {})["LABEL_STUDIO_API_KEY"]
        for number, victim in enumerate(victims, start=1):
            client = LabelStudioClient(server.url, token)
            sender = start(folder, server, token, frame)
            there = wait_for(client, len(frame) * number // (len(victims) + 1), sender)
            time.sleep(rng.uniform(0.0, 0.2))
            if victim == "server":
                os.killpg(server.process.pid, signal.SIGKILL)
                server.process.wait()
                sender.join()
                server = stack.enter_context(running(folder / "server", options.port))
            else:
                sender.kill()
                sender.join()
            print(f"{victim} killed while sending, after {there:,} tasks")
        last = start(folder, server, token, frame)
        last.join()
        found = held(LabelStudioClient(server.url, token))
        twice = sum(1 for n in found.values() if n > 1)
        missing = len(set(frame["comparison_id"]) - set(found))
        print(f"{len(found):,} of {len(frame):,} comparisons are there; {missing} missing, {twice} more than once")
    sys.exit(bool(twice or missing or last.exitcode))


def start(folder: Path, server: Server, token: str, frame: pd.DataFrame) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=send, args=(folder, server.url, token, frame))
    process.start()
    return process


if __name__ == "__main__":
    main()
