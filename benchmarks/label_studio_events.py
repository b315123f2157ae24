"""Events drawn at random on a real Label Studio, and after each the labels counted beside those that should count.

    python benchmarks/label_studio_events.py [--events 25] [--seeds 10] [--first-seed 0]

People label, edit, skip, delete; somebody restores a backup, empties the database, moves the server, deletes a project
or poisons a task; a proxy drips, fails and answers with nothing. A label counts as it was last seen, unless somebody
has deleted it. Exit code 1 where a count is another one, or a label is on record as deleted that is there.
"""

import argparse
import random
import shutil
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
from label_studio import SETTINGS, comparisons

from rlhf_dagster.errors import UserError
from rlhf_dagster.labeling.label_studio.client import LabelStudioClient
from rlhf_dagster.labeling.label_studio.results import encode
from rlhf_dagster.labeling.label_studio.server import DATABASE, local_credentials, prepare, running
from rlhf_dagster.labeling.label_studio.store import LabelStudioStore
from rlhf_dagster.labeling.label_studio.transport.errors import AnotherDatabase
from rlhf_dagster.records.tables import records

ROUND, PURPOSE = "round-0001", "train"
EVENTS = {
    "label": 5,
    "edit": 2,
    "skip": 1,
    "delete annotation": 3,
    "delete task": 2,
    "delete project": 1,
    "backup": 2,
    "restore": 3,
    "reset": 1,
    "move": 1,
    "poison": 2,
    "mend": 1,
    "drip": 1,
    "500": 1,
    "empty 200": 2,
}
"""How often each is drawn."""


@dataclass
class Proxy:
    """In front of the server; ``trouble`` is what it does in its place, once for each request that it is about."""

    target: str = ""
    trouble: str = ""
    url: str = ""


@contextmanager
def proxying(proxy: Proxy) -> Iterator[Proxy]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if proxy.trouble == "500":
                self.reply(500, b"<!doctype html>")
            elif proxy.trouble == "drip":
                self.drip()
            elif proxy.trouble == "empty 200" and self.path.startswith("/api/tasks/") and "-tasks" not in self.path:
                self.reply(200, b'{"total": 0, "total_annotations": 0, "tasks": []}')
            else:
                self.forward(body)

        def forward(self, body: bytes) -> None:
            kept = {
                name: value for name, value in self.headers.items() if name.lower() in ("authorization", "content-type")
            }
            kept["Connection"] = "close"
            with httpx.Client(timeout=60, trust_env=False) as client:
                found = client.request(self.command, proxy.target + self.path, content=body, headers=kept)
            self.reply(found.status_code, found.content)

        def reply(self, status: int, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def drip(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            try:
                for _ in range(1000):
                    self.wfile.write(b"[")
                    time.sleep(0.1)
            except OSError:
                return

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "POST", "PATCH", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_any)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()


Key = tuple[int, str]
"""A label: its number on the server, and when it was made."""


@dataclass
class World:
    """The server, what people have done on it, and what should count."""

    folder: Path
    rng: random.Random
    frame: Any
    proxy: Proxy
    timeout: float = 2.0
    stack: ExitStack = field(default_factory=ExitStack)
    truth: dict[str, tuple[Key, str]] = field(default_factory=dict)
    """The label of each comparison, and its status: the newest that was seen, unless somebody has deleted it.

    One person labels each comparison, whose answer after a loss takes the place of the lost one.
    """
    unseen_deletions: set[Key] = field(default_factory=set)
    """Labels that people have deleted since they were last looked at."""
    poisoned: dict[int, Key] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    client: LabelStudioClient | None = None

    def start(self) -> None:
        port = free_port()
        self.stack.enter_context(running(self.folder / "server", port))
        self.proxy.target = f"http://127.0.0.1:{port}"

    def stop(self) -> None:
        self.stack.close()

    @property
    def token(self) -> str:
        return (local_credentials(self.folder / "server") or {})["LABEL_STUDIO_API_KEY"]

    @property
    def direct(self) -> LabelStudioClient:
        if self.client is None or self.client.url != self.proxy.target:
            self.client = LabelStudioClient(self.proxy.target, self.token)
        return self.client

    def store(self) -> LabelStudioStore:
        client = lambda: LabelStudioClient(self.proxy.url, self.token, self.timeout)  # noqa: E731
        return LabelStudioStore(
            self.folder / "l.sqlite", self.proxy.url, client=client, settings=SETTINGS, loop_name="events"
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tasks_there(world: World) -> list[dict[str, Any]]:
    """All tasks of the loop's projects, those that cannot be shown without their annotations."""
    client, found = world.direct, []
    for project in client.projects("events"):
        found += [task | {"project": project["id"]} for task in tasks_of(client, project["id"])]
    return found


def tasks_of(client: LabelStudioClient, project: int) -> list[dict[str, Any]]:
    try:
        return client.task_page(project)
    except UserError:
        tasks = client.task_page(project, full=False)
    return [found for task in tasks for found in shown(client, project, task)]


def shown(client: LabelStudioClient, project: int, task: dict[str, Any]) -> list[dict[str, Any]]:
    try:
        return client.task_page(project, task["id"] - 1, page_size=1, below_id=task["id"] + 1)
    except UserError:
        return [task | {"annotations": None}]


def key_of(annotation: dict[str, Any]) -> Key:
    return annotation["id"], annotation["created_at"]


def some_annotation(world: World) -> dict[str, Any] | None:
    there = [found for task in tasks_there(world) for found in task["annotations"] or []]
    return world.rng.choice(there) if there else None


def regions(world: World, comparison: str) -> list[dict[str, Any]]:
    row = next(row for row in records(world.frame) if row["comparison_id"] == comparison)
    return encode({"choice": world.rng.choice([0, 1]), "strength": world.rng.choice([0.5, 1.0])}, row, SETTINGS)


def label(world: World) -> None:
    tasks = [task for task in tasks_there(world) if task["annotations"] == []]
    for task in world.rng.sample(tasks, min(len(tasks), world.rng.randint(1, 4))):
        world.direct.annotate(task["id"], regions(world, task["data"]["comparison"]), 2.0)


def edit(world: World) -> None:
    found = some_annotation(world)
    if found:
        world.direct.update_annotation(found["id"], lead_time=world.rng.random(), was_cancelled=False)


def skip(world: World) -> None:
    found = some_annotation(world)
    if found:
        world.direct.update_annotation(found["id"], was_cancelled=True, result=[])


def delete_annotation(world: World) -> None:
    for _ in range(world.rng.choice([1, 1, 2, 9])):
        found = some_annotation(world)
        if found:
            world.direct.delete_annotation(found["id"])
            world.unseen_deletions.add(key_of(found))


def delete_task(world: World) -> None:
    tasks = [task for task in tasks_there(world) if task["annotations"] is not None]
    if tasks:
        task = world.rng.choice(tasks)
        world.direct.delete_tasks(task["project"], [task["id"]])
        world.unseen_deletions |= {key_of(found) for found in task["annotations"]}


def delete_project(world: World) -> None:
    for project in world.direct.projects("events")[:1]:
        world.direct.delete_project(project["id"])


def poison(world: World) -> None:
    tasks = [task for task in tasks_there(world) if task["annotations"] == []]
    if not tasks:
        return
    task = world.rng.choice(tasks)
    body = b'{"result": [], "lead_time": 1e999, "was_cancelled": false}'
    headers = {"Authorization": f"Token {world.token}", "Content-Type": "application/json", "Connection": "close"}
    address = f"{world.proxy.target}/api/tasks/{task['id']}/annotations/"
    httpx.post(address, content=body, headers=headers, trust_env=False, timeout=60)


def mend(world: World) -> None:
    """Somebody finds the annotation that breaks its task: in the database, since the server cannot show it."""
    import sqlite3

    with sqlite3.connect(world.folder / "server" / DATABASE, timeout=30) as database:
        rows = database.execute("SELECT id FROM task_completion WHERE lead_time > 1e300").fetchall()
    for (number,) in rows:
        world.direct._request("DELETE", f"api/annotations/{number}/")


def backup(world: World) -> None:
    world.stop()
    shutil.copyfile(world.folder / "server" / DATABASE, world.folder / "backup.sqlite3")
    world.start()


def restore(world: World) -> None:
    kept = world.folder / "backup.sqlite3"
    if not kept.exists():
        return
    world.stop()
    shutil.copyfile(kept, world.folder / "server" / DATABASE)
    world.start()


def reset(world: World) -> None:
    world.stop()
    (world.folder / "server" / DATABASE).unlink()
    prepare(world.folder / "server")
    world.start()


def move(world: World) -> None:
    """Another port, behind another address: a new proxy stands for the change of label_store.url."""
    world.stop()
    world.start()
    world.proxy.url = (
        world.proxy.url.replace("127.0.0.1", "localhost")
        if "127" in world.proxy.url
        else (world.proxy.url.replace("localhost", "127.0.0.1"))
    )


ACTIONS: dict[str, Callable[[World], None]] = {
    "label": label,
    "edit": edit,
    "skip": skip,
    "delete annotation": delete_annotation,
    "delete task": delete_task,
    "delete project": delete_project,
    "poison": poison,
    "mend": mend,
    "backup": backup,
    "restore": restore,
    "reset": reset,
    "move": move,
}


def happen(world: World, event: str) -> None:
    if event in ACTIONS:
        ACTIONS[event](world)
        return
    before = recorded(world)
    world.proxy.trouble, world.timeout = event, 0.5
    try:
        world.store().read(ROUND, PURPOSE)
    except UserError as error:
        world.asked[type(error).__name__] += 1
    world.proxy.trouble, world.timeout = "", 20.0
    if recorded(world)["deleted"] > before["deleted"]:
        raise SystemExit(f"{event}: recorded as deleted what is there")


def recorded(world: World) -> Counter[str]:
    return Counter(found.status for found in world.store().ledger.read(ROUND, PURPOSE)[0])


def look(world: World) -> None:
    """Read as training does, and answer what is asked as somebody would who knows what has happened."""
    lost = {key for key, _ in world.truth.values()} - {
        key_of(found) for task in tasks_there(world) for found in task["annotations"] or []
    }
    lost -= poisoned_keys(world)
    try:
        world.store().read(ROUND, PURPOSE)
    except AnotherDatabase:
        world.asked["rejoin"] += 1
        world.store().rejoin("benchmark")
        world.unseen_deletions.clear()
    counts = world.store().count(ROUND, PURPOSE)
    if any("may be lost" in notice for notice in counts.notices):
        if lost <= world.unseen_deletions:
            world.asked["accept"] += 1
            world.store().accept_deletions(ROUND, "benchmark")
        else:
            world.asked["rejoin"] += 1
            world.store().rejoin("benchmark")
            world.unseen_deletions.clear()
    if any("is gone" in notice and "may be lost" not in notice for notice in counts.notices):
        send_again(world)
    for comparison, (key, _) in list(world.truth.items()):
        if key in world.unseen_deletions:
            del world.truth[comparison]
    world.unseen_deletions.clear()
    for task in tasks_there(world):
        for found in task["annotations"] or []:
            status = "skipped" if found["was_cancelled"] else "submitted"
            world.truth[task["data"]["comparison"]] = (key_of(found), status)


def send_again(world: World) -> None:
    try:
        world.store().send(world.frame)
    except AnotherDatabase:
        world.asked["rejoin"] += 1
        world.store().rejoin("benchmark")


def poisoned_keys(world: World) -> set[Key]:
    """Labels on tasks that cannot be shown: they are there."""
    hidden = {task["data"]["comparison"] for task in tasks_there(world) if task["annotations"] is None}
    return {key for comparison, (key, _) in world.truth.items() if comparison in hidden}


def wrong(world: World) -> str:
    """What is counted and should not be, or the other way round; empty where all is right."""
    newest = {found.annotation_id: found for found in world.store().ledger.read(ROUND, PURPOSE)[0]}
    ours = Counter((found.comparison_id, found.status) for found in newest.values() if found.status != "deleted")
    should = Counter((comparison, status) for comparison, (_, status) in world.truth.items())
    if ours == should:
        return ""
    return f"counted and should not: {dict(ours - should)}; should and not counted: {dict(should - ours)}"


def one_seed(seed: int, events: int) -> str:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name, proxying(Proxy()) as proxy:
        world = World(Path(name), rng, comparisons(30), proxy, timeout=20.0)
        world.start()
        try:
            world.store().send(world.frame)
            label(world)
            label(world)
            look(world)
            done: list[str] = []
            for _ in range(events):
                event = rng.choices(list(EVENTS), list(EVENTS.values()))[0]
                done.append(event)
                happen(world, event)
                look(world)
                if found := wrong(world):
                    return f"seed {seed}, after {', '.join(done)}: {found}; asked {dict(world.asked)}"
            print(f"seed {seed}: {', '.join(done)}; {len(world.truth)} labels; asked {dict(world.asked)}", flush=True)
            return ""
        finally:
            world.stop()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=25)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    failures = 0
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        if failure := one_seed(seed, options.events):
            print(failure, flush=True)
            failures += 1
    print(f"{options.seeds} times {options.events} events: {failures} with a count that is not as it should be")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
