"""``python -m benchmarks.models``: see ``--help``."""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from transformers.utils import logging
from zoo.models import ZOO

from benchmarks.models import TESTS
from benchmarks.models.matrix import CELLS
from benchmarks.models.page import page, summary, table
from benchmarks.models.run import Row, run_models

PAGE = TESTS.with_name("docs") / "models.md"


def main() -> int:
    """Exit code 1 where a cell is wrong."""
    arguments = parse()
    torch.set_num_threads(1)
    logging.set_verbosity_error()
    names = arguments.only.split(",") if arguments.only else list(ZOO)
    cells = [cell for cell in CELLS if cell.fast or not arguments.fast]
    with tempfile.TemporaryDirectory() as folder:
        rows = run_models(names, cells, arguments.results or Path(folder), tell, arguments.jobs)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    if arguments.only or arguments.fast:
        print(table(rows))
    else:
        PAGE.write_text(page(rows), encoding="utf-8")
    print(summary(rows))
    return int(any(row.count("wrong") for row in rows))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.models", description="The matrix of models and stages.")
    parser.add_argument("--only", metavar="NAME,NAME", help="some models, which writes no page")
    parser.add_argument("--fast", action="store_true", help="the stages that `make test` tries, which writes no page")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="models tried at once (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the results go as JSON")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="a file for each model; those there stay")
    return parser.parse_args()


def tell(row: Row) -> None:
    """A line for each model, and one for each cell of it that is wrong."""
    print(f"{row.model}: {row.count('right')} right, {row.count('refused')} refused, {row.seconds:.0f} s", flush=True)
    for outcome in row.outcomes:
        if outcome.verdict == "wrong":
            print(f"  {outcome.cell}: {outcome.reason}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
