"""A PPO update of GPT-2 small beside TRL's, where this Python has TRL."""

import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.training.cases import CASES
from benchmarks.training.report import spread
from benchmarks.training.runner import run_case

REPETITIONS = 2


def beside_trl(device: str) -> dict[str, Any]:
    """Updates a second, ours over TRL's; both in bf16 (autocast), with all weights trained."""
    if not find_spec("trl"):
        return {"trl": "not installed"}
    with TemporaryDirectory() as name:
        outcome = run_case(_case(device), REPETITIONS, Path(name))
    found = {"ours": outcome.ours.speeds, "TRL": outcome.peer.speeds, "unit": "updates a second"}
    return {"failed": outcome.failure} if outcome.failure else found | {"times faster": spread(outcome.ratio)}


def _case(device: str) -> Any:
    case = next(case for case in CASES if case.name == ("ppo_small" if device == "cuda" else "ppo"))
    options = case.options | {"batch_size": 64, "updates": 4, "device": device, "precision": "bf16"}
    return replace(case, options=options, warm_up=1, peer=replace(case.peer, environment=sys.executable))
