"""Loops small enough to run every stage in seconds, for tests of what stands around the algorithms."""

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import yaml
from forks import forked

from rlhf_dagster.assets.rounds import open_next_round
from rlhf_dagster.automation.execution import RunOutcome
from rlhf_dagster.automation.jobs import HALF_MODELS, JUDGE, LEARN
from rlhf_dagster.cli import main
from rlhf_dagster.cli.runner import LoopRunner
from rlhf_dagster.common import processes
from rlhf_dagster.common.sealed import seal, unseal
from rlhf_dagster.config.loop import CONFIG_FILE, LoopConfig
from rlhf_dagster.lineage.models import Checkpoint
from rlhf_dagster.loop.candidate import policy_assets
from rlhf_dagster.loop.folder import LoopFolder
from rlhf_dagster.loop.guards.place import PLACE_FILE

ROUND = "round-0001"
TRAIN = [*LEARN, HALF_MODELS, *policy_assets(LoopConfig()), *JUDGE]
"""Of `train_round`, up to the promotion, where no other arm is asked for."""
SMALL: dict[str, Any] = {
    "name": "small",
    "seed": 3,
    "data": {"prompts": 400, "demonstrations": 120, "pretraining_texts": 300},
    "base_model": {"tiny": {"layers": 1, "width": 32, "heads": 2, "steps": 30}},
    "sampling": {"response_tokens": 12},
    "sft": {"epochs": 1},
    "labeling": {"comparisons_per_round": 40, "held_out_annotators": 0.25},
    # Thirty labels teach a reward model nothing, and PPO says so where this is not set.
    "reward_model": {"epochs": 1, "normalisation_samples": 16, "accept_chance": True},
    "ppo": {"updates": 3, "batch_size": 16, "minibatches": 1, "epochs": 1},
    "evaluation": {"prompts": 24, "human_judgments": 24},
    # A policy of three updates is no better than SFT, so every rule is one that any policy keeps.
    "gate": {"min_win_rate": 0.0, "max_kl": 1000, "min_distinct": 0.0, "max_length_ratio": 1000, "min_judgments": 5},
    "compute": {"threads": 1},
}


@dataclass(frozen=True)
class Stages:
    """Folders of one loop at three points of its first round."""

    prepared: Path
    """Data, base model and SFT checkpoint; no round is open."""
    unjudged: Path
    """The policy is trained and sampled; the report is not written."""
    finished: Path
    """The policy is promoted."""


def small(**sections: Any) -> dict[str, Any]:
    """The small config with some settings replaced; a mapping replaces only the settings it names."""
    return SMALL | {
        name: SMALL.get(name, {}) | dict(section) if isinstance(section, Mapping) else section
        for name, section in sections.items()
    }


def write_loop(folder: Path, **sections: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(small(**sections)), encoding="utf-8")
    return folder


def copy_loop(source: Path, target: Path, **sections: Any) -> LoopRunner:
    """A loop of one's own in the state of another one, with some settings replaced."""
    copy_folder(source, target)
    return open_runner(write_loop(target, **sections))


def copy_folder(source: Path, target: Path, *left_out: str) -> Path:
    """Copy a loop's folder without its place: the copy is a loop of its own, as one that was restored is."""
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(PLACE_FILE, *left_out))
    return target


def open_runner(folder: Path) -> LoopRunner:
    return LoopRunner.open(LoopFolder.open(folder))


def run_missing(runner: LoopRunner, job: str, round_key: str | None = None, until: str | None = None) -> RunOutcome:
    return runner.run(job, round_key, runner.missing(job, round_key, until))


def checkpoint(loop: LoopFolder, asset: str, round_key: str = "") -> Checkpoint:
    """The model that an asset points to."""
    found = loop.checkpoint(asset, round_key)
    assert found is not None, f"{asset} is not made"
    return found


def run_round(runner: LoopRunner) -> str:
    """Open the next round and take it through both jobs; returns its key."""
    key = open_next_round(runner.instance, runner.loop)
    for job in ("collect_round", "train_round"):
        outcome = run_missing(runner, job, key)
        assert outcome.success, outcome
    return key


def evaluate_as_too_far_from_sft(runner: LoopRunner, key: str) -> None:
    """Evaluate a round's policy, and have its report say that it is 5 nats from SFT.

    One that has hardly learned is at a distance of which not even the sign is known.
    """
    run_missing(runner, "train_round", key, until="eval_report")
    report = runner.loop.json("eval_report", key)
    assert report
    report["policies"]["policy"]["kl"]["value"] = 5.0
    runner.loop.write_json("eval_report", key, report)


def rlhf(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The `rlhf` command in a process of its own, which has imported what it needs when it starts."""
    with TemporaryDirectory() as folder, mock.patch.dict(os.environ, environment):
        process = forked(rlhf_main, *arguments, output=Path(folder, "rlhf"))
        process.join()
        out, err = (Path(folder, f"rlhf.{stream}").read_text(encoding="utf-8") for stream in ("out", "err"))
    return subprocess.CompletedProcess(["rlhf", *map(str, arguments)], process.exitcode or 0, out, err)


def rlhf_from_a_shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same as a shell starts it, which takes the seconds of its imports."""
    command = [str(Path(sys.executable).with_name("rlhf")), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def rlhf_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same in this process; for commands that run no job."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            rlhf_main(*arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
    return subprocess.CompletedProcess(["rlhf", *map(str, arguments)], code, out.getvalue(), err.getvalue())


def rlhf_main(*arguments: object) -> None:
    """Do what the command does, as if this process had been begun for it."""
    begun = mock.patch.object(processes, "begun_at", return_value=datetime.now(UTC))
    with mock.patch.object(sys, "argv", ["rlhf", *map(str, arguments)]), begun:
        main()


def assert_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Exit code 2 and one line on stderr that holds ``parts``."""
    lines = result.stderr.splitlines()
    assert (result.returncode, len(lines)) == (2, 1), (result.returncode, result.stderr, result.stdout)
    assert "Traceback" not in result.stderr
    for part in parts:
        assert part in lines[0]


def asset_path(loop: LoopFolder, asset: str, round_key: str = "", suffix: str = "parquet") -> Path:
    """The file of an asset of a loop in a folder."""
    return loop.root / loop.asset_key(asset, round_key, suffix)


def read_record(path: Path) -> dict[str, Any]:
    """What a JSON file of a loop says."""
    return unseal(path.read_bytes(), path.name)


def write_record(path: Path, content: Mapping[str, Any]) -> None:
    """A JSON file of a loop as the loop would write it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(seal(content))
