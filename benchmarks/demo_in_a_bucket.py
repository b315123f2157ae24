"""The demo with its files in a bucket and its labels in Postgres, killed at random moments and run again.

    python -m benchmarks.demo_in_a_bucket SUMMARY [--kills 10] [--seed 0] [--rounds 2]

``SUMMARY`` is the `summary.json` of the same demo on a disk (`make demo`). An S3 server (moto) and a Postgres
cluster are started on the loopback address. Everything but seconds has to be the same.
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
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from object_server import s3_server
from postgres import PostgresServer, require_postgres

from rlhf_dagster.automation.instance import prepare_home
from rlhf_dagster.config.loop import CONFIG_FILE


def figures(path: Path) -> dict[str, Any]:
    """What a demo's summary says, without how long it took."""
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    del summary["seconds"]
    return summary


def run_demo(folder: Path, rounds: int, environment: dict[str, str], kills: int, draw: random.Random) -> int:
    """Run the demo until it ends by itself, killed ``kills`` times before; how often it was killed."""
    command = [sys.executable, "-c", "from rlhf_dagster.cli import main; main()", "demo", "--out", str(folder)]
    command += ["--rounds", str(rounds)]
    killed = 0
    while True:
        process = subprocess.Popen(command, env=environment, start_new_session=True)  # noqa: S603
        try:
            code = process.wait(draw.uniform(10, 50) if killed < kills else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            killed += 1
            print(f"killed for the {killed}. time", flush=True)
            continue
        if code:
            raise SystemExit(f"the demo ended with exit code {code}")
        return killed


def main() -> int:
    parser = argparse.ArgumentParser(description="The demo in a bucket, killed and run again.")
    parser.add_argument("summary", type=Path)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with s3_server() as s3, tempfile.TemporaryDirectory(prefix="rlhf-demo-") as root:
        Path(root).chmod(0o755)
        postgres = PostgresServer(require_postgres(), Path(root, "postgres"))
        postgres.folder.mkdir()
        postgres.start()
        try:
            folder = Path(root, "demo")
            prepare_home(folder)
            config = {"name": "sentiment", "seed": 0, "root": f"s3://{s3.new_bucket()}/demo", "ledger": "${LEDGER}"}
            (folder / CONFIG_FILE).write_text(yaml.safe_dump(config), encoding="utf-8")
            environment = os.environ | s3.environment | {"LEDGER": postgres.address()}
            began = time.monotonic()
            killed = run_demo(folder, options.rounds, environment, options.kills, random.Random(options.seed))
            same = figures(folder / "summary.json") == figures(options.summary)
        finally:
            postgres.stop()
    print(f"{killed} kills, {time.monotonic() - began:.0f} s: {'the same' if same else 'ANOTHER'} summary")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
