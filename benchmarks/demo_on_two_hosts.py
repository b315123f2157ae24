"""The demo in a bucket and Postgres on two hosts of Ray, beside the demo of two ranks of this machine.

    sudo python -m benchmarks.demo_on_two_hosts [--rounds 2]

The hosts are network namespaces, with one CPU each; an S3 server (moto) and a Postgres cluster, for the ledger and for
Dagster's records, are started beside them. The second host is killed when SFT has a state and again when PPO has;
between the two, Postgres and the S3 server restart. Everything but seconds has to be the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread
from typing import Any

import yaml

from benchmarks.demo_in_a_bucket import figures
from rlhf_dagster.automation.instance import prepare_home
from rlhf_dagster.config.loop import CONFIG_FILE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from object_server import S3Server, s3_server
from postgres import USER, PostgresServer, require_postgres
from ray_hosts import Hosts, hosts, wait_until

TRIES = 6
TWO_RANKS = {"threads": 1, "processes": 2, "checkpoint_seconds": 1}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo_on_two_hosts", description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    rounds = parser.parse_args().rounds
    with (
        tempfile.TemporaryDirectory(prefix="rlhf-demo-") as name,
        hosts(2) as ray,
        s3_server(f"{ray.network}.254") as s3,
    ):
        root = Path(name)
        root.chmod(0o755)
        postgres = PostgresServer(require_postgres(), root / "postgres")
        postgres.folder.mkdir()
        postgres.start()
        try:
            began = time.monotonic()
            plain = folder_of(root / "plain", compute=TWO_RANKS | {"launch": "process"})
            run_demo(plain, rounds, tries=1)
            between = time.monotonic()
            # Ray's nodes take theirs from this process: secrets are no part of a job.
            environment = s3.environment | ray.cluster.environment | {"LEDGER": postgres.address()}
            os.environ.update(environment)
            elsewhere = _elsewhere(root / "elsewhere", ray, postgres, s3)
            disturbed = Thread(target=_disturb, args=(elsewhere, ray, postgres, s3), daemon=True)
            disturbed.start()
            tries = run_demo(elsewhere, rounds, TRIES)
            ended = time.monotonic()
            same = figures(plain / "summary.json") == figures(elsewhere / "summary.json")
        finally:
            postgres.stop()
    whether = "the same" if same else "ANOTHER"
    print(f"{between - began:.0f} s here, {ended - between:.0f} s there (tries: {tries}): {whether} summary")
    return 0 if same and not disturbed.is_alive() else 1


def folder_of(folder: Path, **sections: Any) -> Path:
    """A demo's folder that is made already, with these sections of its `loop.yaml`."""
    prepare_home(folder)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump({"name": "sentiment", "seed": 0, **sections}), encoding="utf-8")
    return folder


def run_demo(folder: Path, rounds: int, tries: int) -> int:
    """Run the demo until it ends well; after how many tries. A server that is away may end one."""
    command = [sys.executable, "-c", "from rlhf_dagster.cli import main; main()", "demo", "--out", str(folder)]
    own = os.environ | {"RLHF_CACHE": f"{folder}-cache"}
    for number in range(1, tries + 1):
        ran = subprocess.run([*command, "--rounds", str(rounds)], env=own, check=False)  # noqa: S603
        if ran.returncode == 0:
            return number
    raise SystemExit(f"the demo in {folder} ended with exit code {ran.returncode}")


def _elsewhere(folder: Path, ray: Hosts, postgres: PostgresServer, s3: S3Server) -> Path:
    ray.start(1)
    ray.start(2)
    asked = {"address": ray.cluster.address, "environment": {"GLOO_SOCKET_IFNAME": "eth0"}, "restarts": 5}
    compute = TWO_RANKS | {"launch": "ray", "ray": asked}
    made = folder_of(folder, root=f"s3://{s3.new_bucket()}/demo", ledger="${LEDGER}", compute=compute)
    storage = {"postgres_url": f"postgresql+psycopg2://{USER}@127.0.0.1:{postgres.port}/postgres"}
    (made / "dagster" / "dagster.yaml").write_text(
        yaml.safe_dump({"storage": {"postgres": storage}, "telemetry": {"enabled": False}}), encoding="utf-8"
    )
    return made


def _disturb(folder: Path, ray: Hosts, postgres: PostgresServer, s3: S3Server) -> None:
    _lose_second(folder, ray, "sft")
    postgres.stop()
    postgres.start()
    s3.restart()
    print("Postgres and the S3 server have restarted", flush=True)
    _lose_second(folder, ray, "ppo")


def _lose_second(folder: Path, ray: Hosts, stage: str) -> None:
    wait_until(lambda: list(folder.glob(f"work/{stage}*/state/state-*")))
    ray.lose(2)
    ray.start(2)
    print(f"the second host was killed in {stage}, and is back", flush=True)


if __name__ == "__main__":
    sys.exit(main())
