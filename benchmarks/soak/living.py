"""Loops with their processes, and the folder in which a soak keeps what it has to know when it is begun again."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
import yaml

from benchmarks.autonomous_loop import config
from rlhf_dagster.cli.ui import free_port
from rlhf_dagster.labeling.label_studio.server import answers
from rlhf_dagster.lineage.stop_cord import read_stop
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.round_state import DECIDED

RLHF = str(Path(sys.executable).with_name("rlhf"))
COMPARISONS = 30
LABELS_PER_MINUTE = 30
SMALL = {
    "data": {"prompts": 4000, "demonstrations": 120, "pretraining_texts": 300},
    "base_model": {"tiny": {"layers": 1, "width": 32, "heads": 2, "steps": 30}},
    "sampling": {"response_tokens": 12},
    "sft": {"epochs": 1},
    "reward_model": {"epochs": 1, "normalisation_samples": 16, "accept_chance": True},
    "ppo": {"updates": 3, "batch_size": 16, "minibatches": 1, "epochs": 1},
    "evaluation": {"prompts": 24, "human_judgments": 24},
    # Three updates make no policy better, so that the rules of the gate are such as any policy keeps.
    "gate": {"min_win_rate": 0.0, "max_kl": 1000, "min_distinct": 0.0, "max_length_ratio": 1000, "min_judgments": 5},
}
"""What needs little computing: a soak is of processes, not of models."""
MOST_STANDING = 45 * 60.0
"""Seconds for which an undecided round may stay as it is, with annotators and a person who follow the handbook."""
RECORD, SAMPLES, STORY = "soak.json", "samples.jsonl", "story.log"


@dataclass
class Living:
    """A loop with its processes."""

    root: Path
    port: int
    label_port: int
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def start(self, name: str) -> None:
        arguments = {
            "ui": ["ui", "--loop", str(self.root), "--port", str(self.port)],
            "annotators": [
                "annotate",
                "--follow",
                "--per-minute",
                str(LABELS_PER_MINUTE),
                "--loop",
                str(self.root),
            ],
        }[name]
        with (self.root / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(  # noqa: S603
                [RLHF, *arguments], stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )

    def keep_up(self) -> None:
        for name in ("ui", "annotators"):
            if name not in self.running or self.running[name].poll() is not None:
                self.start(name)

    def is_up(self) -> bool:
        return all(
            answers(address)
            for address in (f"http://127.0.0.1:{self.port}/server_info", f"http://127.0.0.1:{self.label_port}/health")
        )

    def stop(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(60)


@dataclass
class Record:
    """What a soak has been through, in ``soak.json``; with it a soak goes on in its folder."""

    seed: int
    ports: list[tuple[int, int]]
    """Of the web server and of Label Studio, for each loop."""
    begun: int = 0
    """How often the soak was begun in this folder."""
    seconds: float = 0.0
    """For how long faults have struck, all runs together."""
    faults: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    """What was seen on the way that must not be, each once."""
    standing: dict[str, tuple[str, float]] = field(default_factory=dict)
    """How each undecided round stands, and the second since when."""

    def write(self, out: Path) -> None:
        written = out / f"{RECORD}.new"
        written.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        written.replace(out / RECORD)

    def stands(self, loop: str, rounds: Mapping[str, str]) -> list[str]:
        """Keep in mind how undecided rounds stand; sentences on those that have not moved for too long."""
        found = []
        for key, state in rounds.items():
            name = f"{loop}/{key}"
            if state.startswith(DECIDED):
                self.standing.pop(name, None)
                continue
            before, since = self.standing.get(name, ("", 0.0))
            self.standing[name] = (state, since if before == state else self.seconds)
            if self.seconds - self.standing[name][1] > MOST_STANDING:
                found.append(f"{key} has not moved for {MOST_STANDING / 60:.0f} minutes: {state}")
        return found

    @classmethod
    def read(cls, out: Path) -> "Record | None":
        file = out / RECORD
        return cls(**json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


@dataclass(frozen=True)
class Story:
    """What happened and when, on the screen and in the folder."""

    out: Path

    def __call__(self, line: str) -> None:
        stamped = f"{datetime.now(UTC):%H:%M:%S}  {line}"
        print(stamped, flush=True)
        with (self.out / STORY).open("a", encoding="utf-8") as file:
            file.write(stamped + "\n")


def rlhf(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [RLHF, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def make_loops(out: Path, count: int, seed: int) -> tuple[Record, list[Living]]:
    """Loops of one beginning: the first is prepared, the others are restored from its backup."""
    record = Record(seed, [(free_port(), free_port()) for _ in range(count)])
    loops = living_loops(out, record)
    first = loops[0]
    first.root.mkdir()
    _configure(first, seed)
    _require(rlhf("run", "prepare", "--loop", first.root))
    _require(rlhf("backup", first.root, out / "backup"))
    for living in loops[1:]:
        _require(rlhf("restore", out / "backup", living.root))
        _configure(living, seed)
        _require(rlhf("resume", "--loop", living.root))
    record.write(out)
    return record, loops


def living_loops(out: Path, record: Record) -> list[Living]:
    return [Living(out / f"loop{number}", *ports) for number, ports in enumerate(record.ports)]


def go_on(loops: list[Living]) -> None:
    """End what an earlier run left at work in these loops, and let go of a cord that it held."""
    for living in loops:
        left = of_loop(living.root)
        for process in left:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGCONT)
                process.kill()
        psutil.wait_procs(left, timeout=30)
        if read_stop(LoopFolder.open(living.root).store) is not None:
            _require(rlhf("resume", "--loop", living.root))


def of_loop(root: Path) -> list[psutil.Process]:
    """Python processes that work for a loop, but this one and what began it."""
    ours = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    return [process for process in psutil.process_iter() if process.pid not in ours and _works_for(process, root)]


def _works_for(process: psutil.Process, root: Path) -> bool:
    with suppress(psutil.Error):
        if not Path(process.exe()).name.startswith("python"):
            return False
        words = [*process.cmdline(), *process.environ().values()]
        return any(f"{word}/".find(f"{root}/") >= 0 for word in words)
    return False


def until(seconds: float, every: float = 2.0) -> Iterator[None]:
    """Beats for so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield
        time.sleep(every)


def _configure(living: Living, seed: int) -> None:
    settings = config(living.label_port, living.port, seed, COMPARISONS) | SMALL
    settings["automation"] |= {"open_round_cron": "*/2 * * * *", "poll_seconds": 20}
    (living.root / "loop.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def _require(done: "subprocess.CompletedProcess[str]") -> None:
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)}: {done.stderr}")
