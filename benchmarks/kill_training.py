"""PPO by `rlhf train`, killed with SIGKILL at random updates, against the same training that nothing interrupts.

    python benchmarks/kill_training.py [--kills 10] [--updates 120] [--seed 0] [--ppo '{"value": "separate"}']

A tiny model, SFT and a reward model of the embedded task are made first. The training is started again after each kill
and goes on from its last state. Says at which update each kill came and from which it went on, and compares every file
of both models and both logs byte by byte. Exit code 1 where anything differs.
"""

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from rlhf_dagster.records.ids import content_hash, demonstration_id, prompt_id
from rlhf_dagster.records.schemas import DEMONSTRATIONS, PREFERENCES, PRETRAINING_TEXT, PROMPTS, table
from rlhf_dagster.tasks.known import get_task

RLHF = [sys.executable, "-c", "from rlhf_dagster.cli import main; main()"]
SAMPLING = {"prompt_tokens": 24, "response_tokens": 16, "batch_size": 64}
COMPUTE = {"threads": 1, "device": "cpu", "checkpoint_seconds": 0.2}
"""States are older than most kills, so that updates are done again."""
PPO = {
    "batch_size": 32,
    "kl_target": 4.0,
    "pretraining_coef": 0.5,
    "validate_every": 10,
    "validation_prompts": 32,
    "kl_budget": 20.0,
    "patience": None,
}
"""As much as there is to be kept: value head, adaptive coefficient, text, and the best weights so far."""
TINY = {"layers": 2, "width": 64, "heads": 4, "context": 48, "steps": 200}
SHORT = {"epochs": 1, "max_tokens": 40}
POLL = 0.005


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--updates", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ppo", type=json.loads, default={}, help="further settings of PPO, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = make_inputs(folder) | {
            "settings": PPO | {"updates": options.updates} | options.ppo,
            "seed": options.seed,
        }
        train(folder, "ppo", spec | {"output": "whole"})
        at = random.Random(options.seed).sample(range(1, options.updates), options.kills)
        path = write_spec(folder, "killed", spec | {"output": "killed"})
        print(f"{'kill':>4} {'after update':>12} {'goes on from':>12}")
        for number, update in enumerate(sorted(at), start=1):
            reached = kill_after(path, folder / "killed.logs" / "metrics.jsonl", update)
            print(f"{number:>4} {reached:>12} {newest_state(folder / 'killed.training'):>12}", flush=True)
        run(path, "ppo")
        different = differences(folder, "whole", "killed")
    print("every weight, curve and metric is the same" if not different else f"different: {', '.join(different)}")
    return int(bool(different))


def kill_after(path: Path, log: Path, update: int) -> int:
    """Start the training and kill it once ``update`` is logged; returns the last update logged."""
    with subprocess.Popen([*RLHF, "train", "ppo", str(path)], stdout=subprocess.DEVNULL) as process:  # noqa: S603
        while last_step(log) < update:
            if process.poll() is not None:
                raise SystemExit(f"The training ended before update {update} (exit code {process.returncode}).")
            time.sleep(POLL)
        process.send_signal(signal.SIGKILL)
    return last_step(log)


def last_step(log: Path) -> int:
    """The last whole line's step; 0 without one."""
    lines = log.read_bytes().split(b"\n")[:-1] if log.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def newest_state(work: Path) -> int:
    """The update of the state from which the next try goes on; 0 where it begins anew."""
    return max((int(state.name.removeprefix("state-")) for state in work.glob("*/state/state-*")), default=0)


def differences(folder: Path, one: str, other: str) -> list[str]:
    """Files of two trainings' models, and their logs, that are not the same byte by byte."""
    names = {path.relative_to(folder / model) for model in (one, other) for path in (folder / model).rglob("*.*")}
    pairs = {str(name): (folder / one / name, folder / other / name) for name in sorted(names)}
    pairs["metrics.jsonl"] = (folder / f"{one}.logs/metrics.jsonl", folder / f"{other}.logs/metrics.jsonl")
    return [name for name, files in pairs.items() if len({read(file) for file in files}) > 1]


def read(file: Path) -> bytes | None:
    return file.read_bytes() if file.is_file() else None


def make_inputs(folder: Path) -> dict[str, Any]:
    """Tables and models; returns the spec of PPO without output, settings and seed."""
    make_tables(folder)
    shared = {"sampling": SAMPLING, "compute": COMPUTE}
    base = {"pretraining_text": "text.parquet", "output": "base", "settings": TINY, "compute": COMPUTE}
    sft = {"model": "base", "demonstrations": "demonstrations.parquet", "output": "sft", "settings": SHORT}
    reward = {"sft": "sft", "preferences": "preferences.parquet", "prompts": "prompts.parquet", "output": "reward"}
    train(folder, "tiny_model", base)
    train(folder, "sft", sft | shared)
    train(folder, "reward_model", reward | shared | {"settings": SHORT})
    models = {"sft": "sft", "start": "sft", "reward_model": "reward"}
    return models | {"prompts": "prompts.parquet", "pretraining_text": "text.parquet"} | shared


def make_tables(folder: Path) -> None:
    """Of the embedded task; a label says that a demonstration is better than that of another prompt."""
    task = get_task("sentiment")
    pairs = task.demonstrations(600, 0, "train")
    texts = [{"text_id": content_hash(text), "text": text} for text in task.pretraining_text(1500, 0, "train")]
    prompts = [(text, split) for split in ("train", "validation") for text in task.prompts(200, 0, split)]
    asked = [{"prompt_id": prompt_id(text), "text": text, "user": ""} | _plain(split) for text, split in prompts]
    compared = [(prompt, [response, pairs[number - 1][1]]) for number, (prompt, response) in enumerate(pairs)]
    write_table(folder, "text", [text | _plain() for text in texts], PRETRAINING_TEXT)
    write_table(folder, "prompts", asked, PROMPTS)
    write_table(folder, "demonstrations", [_demonstration(*pair) for pair in pairs], DEMONSTRATIONS)
    write_table(folder, "preferences", [_label(n, *one) for n, one in enumerate(compared)], PREFERENCES)


def _plain(split: str = "train") -> dict[str, str]:
    return {"source": "benchmark", "split": split}


def _demonstration(prompt: str, response: str) -> dict[str, Any]:
    ids = {"demonstration_id": demonstration_id(prompt, response), "prompt_id": prompt_id(prompt)}
    return ids | {"prompt": prompt, "response": response} | _plain()


def _label(number: int, prompt: str, responses: list[str]) -> dict[str, Any]:
    return {
        "label_id": str(number),
        "comparison_id": str(number),
        "round": "benchmark",
        "kind": "pair",
        "prompt_id": prompt_id(prompt),
        "prompt": prompt,
        "responses": responses,
        "policy_ids": ["demonstration"] * 2,
        "ranks": [1, 2],
        "target": [1.0, 0.0],
        "annotator": "benchmark",
        "weight": 1.0,
        "split": "train" if number % 10 else "validation",
    }


def write_table(folder: Path, name: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    pq.write_table(table(rows, schema), folder / f"{name}.parquet")


def write_spec(folder: Path, name: str, spec: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def train(folder: Path, stage: str, spec: dict[str, Any]) -> None:
    run(write_spec(folder, spec["output"], spec), stage)


def run(path: Path, stage: str) -> None:
    done = subprocess.run([*RLHF, "train", stage, str(path)], stdout=subprocess.DEVNULL, check=False)  # noqa: S603
    if done.returncode:
        raise SystemExit(f"`rlhf train {stage} {path.name}` ended with exit code {done.returncode}.")


if __name__ == "__main__":
    raise SystemExit(main())
