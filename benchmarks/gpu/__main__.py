"""What a GPU has to show, in one command of at most eight minutes: ``python -m benchmarks.gpu --out FILE``.

Every stage of a small model beside the same on the CPU, and every way of saving memory beside the plain one; NCCL; the
speed of sampling and updates at 124 million and 1.3 billion parameters beside what the card's matrix products and
memory can do; peak memory beside its estimate, up to the shapes of a model of 7 billion; TRL's PPO beside ours where
TRL is installed. ``--device cpu`` runs the same code on small sizes without a GPU.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.beside_trl import beside_trl
from benchmarks.gpu.equality import equality
from benchmarks.gpu.memory import memory, seven_billion
from benchmarks.gpu.nccl import nccl
from benchmarks.gpu.rates import rates
from benchmarks.gpu.sharded import sharded
from benchmarks.gpu.speed import speed

PARTS = {part.__name__: part for part in (rates, equality, nccl, sharded, speed, memory, seven_billion, beside_trl)}


def main() -> None:
    options = parse()
    answer: dict[str, Any] = {"device": _name(options.device), "torch": torch.__version__}
    for name in options.parts:
        began = time.perf_counter()
        try:
            found = dict(PARTS[name](options.device))
        except Exception as failure:
            # The others' numbers are worth having where one part fails.
            found = {"failed": f"{type(failure).__name__}: {failure}"}
        answer[name] = found | {"seconds": round(time.perf_counter() - began, 1)}
        _write(answer, options.out)
    print(json.dumps(answer, indent=1))
    if any("failed" in answer[name] for name in options.parts):
        raise SystemExit(1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="a file for the answer, which is printed in any case")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="default: all")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch finds no GPU; `--device cpu` runs the same on small sizes.")
    return options


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def _write(answer: dict[str, Any], out: Path | None) -> None:
    """After each part, so that what is there is not lost where a later one takes too long."""
    if out:
        out.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
