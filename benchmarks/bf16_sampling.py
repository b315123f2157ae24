"""Sampling in bf16 beside fp32 and ``generate()`` in bf16, on one thread: ``python -m benchmarks.bf16_sampling``.

Each turn times the three, one after the other, on a Llama with random weights; ours also returns log-probs. Said are
tokens a second, medians over turns, and the ratios within turns. Processors without products in bfloat16 (see `flags`
in the answer) compute in float32 and round, which is slower than float32 at any size.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.gpu.speed import generate_seconds, rollout_seconds
from benchmarks.memory import make_model, make_specs

CPU_INFO = Path("/proc/cpuinfo")


def main() -> None:
    arguments = parse()
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        turns = list(_turns(arguments, Path(name)))
    drawn = arguments.rows * arguments.response
    answer = {
        "flags": _products_in_bf16(),
        "tokens a second": {way: round(drawn / statistics.median(turn[way] for turn in turns)) for way in turns[0]},
        "bf16 against fp32": _ratios(turns, "fp32"),
        "bf16 against generate()": _ratios(turns, "generate() in bf16"),
    }
    print(json.dumps(answer, indent=1))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bf16_sampling", description=__doc__)
    for size, default in (("layers", 30), ("width", 576), ("heads", 9), ("key-value-heads", 3), ("inner", 1536)):
        parser.add_argument(f"--{size}", type=int, default=default)
    parser.add_argument("--vocabulary", type=int, default=49_152)
    parser.add_argument("--rows", type=int, default=16, help="of a batch")
    parser.add_argument("--prompt", type=int, default=32, help="tokens")
    parser.add_argument("--response", type=int, default=32, help="tokens")
    parser.add_argument("--turns", type=int, default=5)
    return parser.parse_args()


def _turns(arguments: argparse.Namespace, folder: Path) -> Any:
    model = make_model(folder / "model", arguments)
    asked = argparse.Namespace(**vars(arguments) | {"set": ["compute.device=cpu"], "stages": ["sft"]})
    spec = make_specs(asked, model, folder)["sft"]
    for _ in range(arguments.turns):
        turn = {kind: rollout_seconds(model, folder / "prompts.parquet", spec, kind) for kind in ("fp32", "bf16")}
        turn["generate() in bf16"] = generate_seconds(model, folder / "prompts.parquet", spec)
        print(json.dumps(turn), file=sys.stderr, flush=True)
        yield turn


def _ratios(turns: list[dict[str, float]], other: str) -> dict[str, float]:
    found = sorted(turn[other] / turn["bf16"] for turn in turns)
    return {"median": round(statistics.median(found), 2), "least": round(found[0], 2), "most": round(found[-1], 2)}


def _products_in_bf16() -> list[str]:
    """What the processor says of its products in bfloat16."""
    words = CPU_INFO.read_text().split() if CPU_INFO.exists() else []
    return sorted({word for word in words if word in ("avx512_bf16", "amx_bf16")})


if __name__ == "__main__":
    main()
