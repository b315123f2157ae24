"""``python -m benchmarks.training``: see ``--help``."""

import argparse
import json
import os
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.training.cases import CASES, chosen
from benchmarks.training.chart import draw
from benchmarks.training.learning import NAME, learning_table, run_learning, write_learning
from benchmarks.training.machine import describe
from benchmarks.training.report import as_json, matmul_table, spread, table
from benchmarks.training.runner import Outcome, run_case


def main() -> None:
    arguments = parse()
    speeds = None if arguments.cases is None else [name for name in arguments.cases if name != NAME]
    outcomes: list[Outcome] = []
    for case in [] if speeds == [] else chosen(speeds, arguments.quick):
        outcomes.append(run_case(case, arguments.repetitions, arguments.cache))
        write(outcomes, arguments.out)
        print(f"{case.name}: {outcomes[-1].failure or spread(outcomes[-1].ratio) + ' times faster'}", flush=True)
    if outcomes:
        print((arguments.out / "training.md").read_text(encoding="utf-8"))
    if NAME in (arguments.cases or ([] if arguments.quick else [NAME])):
        write_learning(curves := run_learning(arguments.seeds, arguments.cache), arguments.out)
        print(learning_table(curves))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    names = ", ".join([*(case.name for case in CASES), NAME])
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"some of {names}; default: all")
    parser.add_argument("--repetitions", type=int, default=5, help="of each side, in turn (default 5)")
    parser.add_argument("--seeds", type=int, default=5, help="of each side's learning curves (default 5)")
    parser.add_argument("--quick", action="store_true", help="the tiny shapes alone, without learning curves")
    parser.add_argument("--out", type=Path, default=Path("benchmark"), help="folder of table, JSON and chart")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="environments of the peers, and inputs")
    return parser.parse_args()


def default_cache() -> Path:
    return Path(os.environ.get("RLHF_CACHE", Path.home() / ".cache" / "rlhf_dagster")) / "benchmark"


def write(outcomes: list[Outcome], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    machine = describe() | {"finished": datetime.now(UTC).isoformat(timespec="seconds")}
    text = "\n\n".join(part for part in (table(outcomes), matmul_table(outcomes)) if part)
    (folder / "training.md").write_text(text + "\n", encoding="utf-8")
    (folder / "training.json").write_text(json.dumps(as_json(outcomes, machine), indent=1) + "\n", encoding="utf-8")
    draw(outcomes, folder / "training.png")


if __name__ == "__main__":
    main()
