"""Sizes of the models that are measured, with random weights, and the settings that the parts share."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.memory import STAGES, Specs, make_model, make_specs

ADAPTERS = "lora={rank: 8}"
ONE_BASE = "lora={rank: 8, merge: false}"
IN_CODES = "lora={rank: 8, merge: false, base_bits: 4}"
LARGE = {
    "124M": {"layers": 12, "width": 768, "heads": 12, "inner": 2048, "vocabulary": 50_257},
    "1.3B": {"layers": 24, "width": 2048, "heads": 16, "inner": 5632, "vocabulary": 32_000},
}
SMALL = {"tiny": {"layers": 2, "width": 64, "heads": 4, "inner": 172, "vocabulary": 2048}}
"""In place of these on a CPU."""
CASE: dict[str, Any] = {"model": None, "rows": 8, "prompt": 32, "response": 32, "stages": STAGES, "set": []}


def sizes_on(device: str) -> dict[str, dict[str, Any]]:
    return LARGE if device == "cuda" else SMALL


@contextmanager
def made(case: dict[str, Any]) -> Iterator[tuple[Path, Specs]]:
    """The model of a case, and the specs of its stages."""
    with TemporaryDirectory() as name:
        arguments = Namespace(**case)
        model = make_model(Path(name, "model"), arguments)
        yield model, make_specs(arguments, model, Path(name))
