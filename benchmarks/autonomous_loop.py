"""Three rounds that nobody types a command for, while the daemon, the servers and the trainings are killed.

    python benchmarks/autonomous_loop.py [--rounds 3] [--kills 2] [--per-minute 900] [--out DIR] [--seed 0]

The real thing: `rlhf ui` (daemon, code server, web server), a real Label Studio, simulated annotators who log in and
trickle labels in, and trainings in processes of their own. The daemon, Label Studio, the code server and a training are
each killed with SIGKILL at random moments, ``--kills`` times. Then it checks:

- every round was promoted, or refused with its reasons;
- every annotation on the server is in the loop's ledger once, and nothing else is;
- no round was trained twice on the same labels;
- no place in the pool is held, and no process is left.

Exit code 1 if one of these is not so. `report.json` in the folder says what happened and when.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from rlhf_dagster.automation.instance import dagster_home
from rlhf_dagster.automation.own_runs import ALIVE
from rlhf_dagster.cli.ui import free_port
from rlhf_dagster.labeling.label_studio.server import answers
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.label_store import label_studio_client
from rlhf_dagster.loop.round_state import RoundState, round_state

LOOK = 10.0
"""Seconds between two looks at the rounds, which the label server answers."""
SETTLE = 20.0
"""Seconds between two kills at least, so that what was killed is there again."""


def config(port: int, ui: int, seed: int, comparisons: int) -> dict[str, Any]:
    return {
        "name": "autonomous",
        "seed": seed,
        "labeling": {"comparisons_per_round": comparisons},
        # Few labels may not tell the reward model from guessing; what is tried here is that nothing is lost.
        "reward_model": {"accept_chance": True},
        "label_store": {
            "kind": "label_studio",
            "url": f"http://127.0.0.1:{port}",
            "simulated_annotators": False,
        },
        "compute": {"threads": 1, "launch": "process", "checkpoint_seconds": 3, "grace_seconds": 20},
        "automation": {
            "running": True,
            "open_round_cron": "* * * * *",
            "min_new_labels": comparisons // 3,
            "quiet_minutes": 0.5,
            "poll_seconds": 5,
            "ui_url": f"http://127.0.0.1:{ui}",
        },
    }


@dataclass
class Story:
    """What happened, and when."""

    began: float = field(default_factory=time.monotonic)
    lines: list[str] = field(default_factory=list)

    def __call__(self, line: str) -> None:
        stamped = f"{time.monotonic() - self.began:7.1f} s  {line}"
        self.lines.append(stamped)
        print(stamped, flush=True)


@dataclass
class Killer:
    """Kills each kind of process so many times, at random moments."""

    root: Path
    left: dict[str, int]
    rng: random.Random
    story: Story
    due: float = 0.0

    def maybe(self) -> None:
        now = time.monotonic()
        if now < self.due:
            return
        self.due = now + SETTLE + self.rng.expovariate(1 / 15)
        there = [kind for kind, left in self.left.items() if left and processes(self.root, kind)]
        if not there:
            return
        # A training is there for a short time only: it goes first.
        kind = "training" if "training" in there else self.rng.choice(there)
        pid = self.rng.choice(processes(self.root, kind))
        os.kill(pid, signal.SIGKILL)
        self.left[kind] -= 1
        self.story(f"killed {kind} (pid {pid})")


def processes(root: Path, kind: str) -> list[int]:
    """Pids of a kind of process of the loop in ``root``."""
    home, data = str(dagster_home(root)), str(root)
    signs = {
        "daemon": ("dagster._daemon", home),
        "code server": ("dagster", "rlhf_dagster.definitions"),
        "label server": ("label-studio", "start", "--no-browser"),
        "training": ("rlhf_dagster.compute.worker", data),
    }[kind]
    refused = {"training": "rlhf_dagster.compute.guard"}.get(kind, "execute_run")
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (path / "environ").read_bytes().decode(errors="replace")
        except OSError:
            continue
        ours = data in command or data in environment
        if ours and all(sign in command for sign in signs) and refused not in command:
            found.append(int(path.name))
    return sorted(found)


@contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """An `rlhf` command for as long as the block lasts."""
    rlhf = str(Path(sys.executable).with_name("rlhf"))
    with log.open("ab") as output:
        command = [rlhf, *arguments]
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)  # noqa: S603
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def watch(loop: LoopFolder, rounds: int, killer: Killer, story: Story, services: list[subprocess.Popen[bytes]]) -> None:
    """Until so many rounds are decided on and every kill was made."""
    said: dict[str, str] = {}
    next_look = 0.0
    with dg.DagsterInstance.from_config(str(dagster_home(loop.root))) as instance:
        while True:
            died = [process.args for process in services if process.poll() is not None]
            if died:
                raise SystemExit(f"{died} ended by itself")
            killer.maybe()
            time.sleep(1)
            if time.monotonic() < next_look:
                continue
            next_look = time.monotonic() + LOOK
            keys = sorted(instance.get_dynamic_partitions("rounds"))
            states = {key: look(loop, key) for key in keys}
            for key, state in states.items():
                if state is not None and said.get(key) != state.phase:
                    said[key] = state.phase
                    story(f"{key}: {state.phase} {'; '.join(state.reasons)}".rstrip())
            decided = [state for state in states.values() if state is not None and state.decided]
            if len(decided) >= rounds and not instance.get_runs(dg.RunsFilter(statuses=ALIVE)):
                return


def look(loop: LoopFolder, key: str) -> RoundState | None:
    """The round's state; None while the label server is away."""
    try:
        return round_state(loop, key)
    except Exception:  # it was killed a moment ago
        return None


def check(loop: LoopFolder, rounds: int) -> dict[str, Any]:
    """What must hold in the end; ``problems`` is empty where it does."""
    problems: list[str] = []
    with dg.DagsterInstance.from_config(str(dagster_home(loop.root))) as instance:
        keys = sorted(instance.get_dynamic_partitions("rounds"))[:rounds]
        verdicts = {key: verdict(loop, key) for key in keys}
        problems += [f"{key} has neither a promotion nor a reason" for key, found in verdicts.items() if not found]
        trained = Counter(
            (key, json.loads(path)["labels_read"]["position"]) for key in keys for path in reports(instance, loop, key)
        )
        problems += [f"{key} was trained {n} times on labels up to {at}" for (key, at), n in trained.items() if n > 1]
        holders = instance.event_log_storage.get_concurrency_info("gpu").active_run_ids
        problems += [f"the pool is held by {sorted(holders)}"] if holders else []
        runs = Counter(f"{run.job_name} {run.status.value}" for run in instance.get_runs())
    labels = {f"{key}/{purpose}": compare(loop, key, purpose) for key in keys for purpose in ("train", "evaluation")}
    problems += [
        f"{name}: {found}" for name, found in labels.items() if found["server"] != found["ledger"] or found["twice"]
    ]
    return {"verdicts": verdicts, "runs": dict(runs), "labels": labels, "problems": problems}


def verdict(loop: LoopFolder, key: str) -> str:
    decision = loop.json("promotion", key)
    if decision is not None:
        return "promoted" if decision["promoted"] else " ".join(decision["reasons"])
    return " ".join(round_state(loop, key).reasons)


def reports(instance: dg.DagsterInstance, loop: LoopFolder, key: str) -> list[str]:
    """The round's report as often as it was made."""
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("ppo_policy"), asset_partitions=[key]), limit=100
    ).records
    models = {
        record.asset_materialization.metadata["model_id"].value for record in records if record.asset_materialization
    }
    text = json.dumps(loop.json("eval_report", key))
    return [text] * max(0, len(records) - len(models) + 1)


def compare(loop: LoopFolder, key: str, purpose: str) -> dict[str, int]:
    """Submitted annotations on the server and in the ledger."""
    client, store = label_studio_client(loop.config, loop.root), loop.label_store
    newest = {annotation.annotation_id: annotation for annotation in store.read(key, purpose)[0]}
    ledger = Counter((a.comparison_id, a.annotator) for a in newest.values() if a.status == "submitted")
    server: Counter[tuple[str, int]] = Counter()
    for address in store.addresses(key, purpose):  # type: ignore[union-attr]
        project, after = int(address.split("/projects/")[1].split("/")[0]), 0
        while page := client.task_page(project, after):
            after = page[-1]["id"]
            server.update(
                (task["data"]["comparison"], annotation["completed_by"])
                for task in page
                for annotation in task["annotations"]
                if not annotation["was_cancelled"]
            )
    twice = sum(n > 1 for n in server.values()) + sum(n > 1 for n in ledger.values())
    return {"server": sum(server.values()), "ledger": sum(ledger.values()), "twice": twice}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=2, help="of each kind of process")
    parser.add_argument("--per-minute", type=float, default=900, help="labels")
    parser.add_argument("--comparisons", type=int, default=600, help="in a round")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    root = (options.out or Path(tempfile.mkdtemp(prefix="autonomous-"))).resolve()
    root.mkdir(parents=True, exist_ok=True)
    story, ui = Story(), free_port()
    (root / "loop.yaml").write_text(yaml.safe_dump(config(free_port(), ui, options.seed, options.comparisons)))
    story(f"a loop in {root}")
    with started(["run", "prepare", "--loop", str(root)], root / "prepare.log") as prepare:
        if prepare.wait():
            raise SystemExit((root / "prepare.log").read_text())
    loop = LoopFolder.open(root)
    kinds = ("daemon", "label server", "code server", "training")
    killer = Killer(root, dict.fromkeys(kinds, options.kills), random.Random(options.seed), story)
    follow = ["annotate", "--follow", "--per-minute", str(options.per_minute), "--loop", str(root)]
    with started(["ui", "--loop", str(root), "--port", str(ui)], root / "ui.log") as services:
        while not answers(f"http://127.0.0.1:{ui}/server_info"):
            if services.poll() is not None:
                raise SystemExit((root / "ui.log").read_text())
            time.sleep(1)
        story(f"the UI is http://127.0.0.1:{ui}")
        with started(follow, root / "annotators.log") as annotators:
            watch(loop, options.rounds, killer, story, [services, annotators])
        found = check(loop, options.rounds)
    left = [pid for kind in kinds for pid in processes(root, kind)]
    found["problems"] += [f"processes are left: {left}"] if left else []
    found |= {"kills_not_made": killer.left, "story": story.lines}
    (root / "report.json").write_text(json.dumps(found, indent=1))
    print(json.dumps({name: value for name, value in found.items() if name != "story"}, indent=1))
    return 1 if found["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
