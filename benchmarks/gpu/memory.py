"""Peak memory of every stage beside its estimate."""

import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.gpu.cases import CASE, IN_CODES, ONE_BASE, sizes_on
from benchmarks.memory import make_model, measured

WAYS: dict[str, list[str]] = {"all weights": [], "one base": [ONE_BASE], "one base in 4 bits": [IN_CODES]}
SEVEN_BILLION = {"layers": 32, "width": 4096, "heads": 32, "inner": 11_008, "vocabulary": 32_000}
"""Llama 2's of that size (Touvron et al. 2023), but for one matrix that is both embedding and output head."""
WHOLE = {"prompt": 512, "response": 512, "rows": 16}
OF_SEVEN_BILLION = {
    "bf16": ["lora={rank: 16, merge: false}"],
    "4 bits": ["lora={rank: 16, merge: false, base_bits: 4}"],
}


def memory(device: str) -> dict[str, Any]:
    """With all weights, with one base, and with one base in 4 bits."""
    cases = {
        f"{size}, {way}": CASE | {"prompt": 128, "response": 128, "set": settings} | sizes
        for size, sizes in sizes_on(device).items()
        for way, settings in WAYS.items()
    }
    return _side_by_side(cases, device)


def seven_billion(device: str) -> dict[str, Any]:
    """The shapes of a model of 7 billion parameters: adapters of rank 16 on one base, and a value model of its own."""
    case = CASE | (SEVEN_BILLION | WHOLE if device == "cuda" else next(iter(sizes_on(device).values())))
    with TemporaryDirectory() as name:
        model = make_model(Path(name), Namespace(**case, key_value_heads=case["heads"], device=device))
        return _side_by_side(
            {
                base: case | {"model": model, "set": [*settings, "ppo.value=separate"]}
                for base, settings in OF_SEVEN_BILLION.items()
            },
            device,
        )


def _side_by_side(cases: dict[str, dict[str, Any]], device: str) -> dict[str, Any]:
    """All cases at once: what is measured is what each process's own allocator held at most."""
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda case: _stages(case, device), cases.values())
        return dict(zip(cases, found, strict=True))


def _stages(case: dict[str, Any], device: str) -> dict[str, Any]:
    """By stage; what fails is said in place of its number."""
    extra = [f"compute.device={device}", "compute.precision=bf16", "compute.gradient_checkpointing=true"]
    arguments = Namespace(**case | {"key_value_heads": case["heads"], "set": [*extra, *case["set"]], "device": device})
    found: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        try:
            for row in measured(arguments, Path(name)):
                print(case["layers"], case["width"], case["set"], row, file=sys.stderr, flush=True)
                found[row.pop("stage")] = row
        except SystemExit as failure:
            found["failed"] = str(failure)[-500:]
    return found
