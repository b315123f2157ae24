"""A claim of two tiny loops, of which one begins as the other does: what replications are tested with."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from loops import SMALL

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.replication.base import Claim, Criterion, Measured, Probe, Results, Size, Variant
from rlhf_dagster.replication.running.plan import Plan, VariantWork, make_plan
from rlhf_dagster.replication.running.replicate import run_plan
from rlhf_dagster.replication.running.requests import WorkerMessage

Heard = list[tuple[str, WorkerMessage]]
"""What was said of which variant."""

SETTINGS: Mapping[str, Any] = {name: section for name, section in SMALL.items() if name not in ("name", "seed")}
ZERO_SHOT = Probe("zero_shot")
PLAIN = Variant("plain", "sentiment", SETTINGS, probes=(ZERO_SHOT,))
FREE = Variant(
    "free",
    "sentiment",
    overlaid(dict(SETTINGS), {"ppo": {"kl_coef": 0.0, "kl_target": None}}),
    forks=PLAIN,
    after="reward_model_accuracy",
)
"""The same without a penalty, on the other's labels and reward model."""
SMALLER = replace(
    FREE,
    name="smaller",
    settings=overlaid(dict(FREE.settings), {"base_model": {"tiny": {"width": 16}}, "ppo": {"start": "sft"}}),
    anew=("base_model", "sft_checkpoint"),
)
"""A smaller model against the same reward model."""
ALONE = replace(FREE, forks=None, after="")
"""The same loop, made from its beginning."""


class Smoke:
    """Says nothing about anything."""

    name = "C0"
    title = "Two loops run"
    source = "nobody"
    paper = "No figure."
    seeds_for_one = 3

    def __init__(self, *variants: Variant) -> None:
        self._variants = variants or (PLAIN, FREE)

    def variants(self, size: Size) -> Sequence[Variant]:
        return self._variants

    def measure(self, results: Results, size: Size) -> Measured:
        reports = [results.loop(variant).json("eval_report", "round-0001") for variant in self._variants]
        return {"kl": [report["policies"]["policy"]["kl"] for report in reports if report]}

    def criteria(self, figures: Sequence[Measured]) -> Sequence[Criterion]:
        kl = figures[0]["kl"][0]
        return (Criterion("It has a KL", kl["value"], kl["low"], kl["high"], 1000.0, "below", kl["n"]),)

    def plot(self, figures: Sequence[Measured]) -> Any:
        from matplotlib.figure import Figure

        return Figure()

    def summary(self, figures: Sequence[Measured]) -> str:
        return f"The KL is {figures[0]['kl'][0]['value']:.2f} nats."

    def supporting(self) -> Sequence[Measured]:
        return [{"kl": [{"value": 1.0, "low": 0.9, "high": 1.1, "n": 10}]}]

    def contrary(self) -> Sequence[Measured]:
        return [{"kl": [{"value": 2000.0, "low": 1900.0, "high": 2100.0, "n": 10}]}]


def plan_of(out: Path, *claims: Claim, seeds: Sequence[int] = (0,)) -> Plan:
    return make_plan(product(claims, seeds), "quick", out, claims)


def run(plan: Plan, jobs: int = 1) -> tuple[Heard, dict[str, str]]:
    """Run a plan; what was said, and why works failed."""
    heard: Heard = []
    failures = run_plan(plan, jobs, lambda _: 1.0, lambda work, said: heard.append((work.loop.variant.name, said)))
    return heard, failures


def run_until_killed(out: Path, asset: str) -> None:
    """Run the loop that is made alone, and die without a word when an asset begins."""

    def listen(_: VariantWork, said: WorkerMessage) -> None:
        if (said.kind, said.what) == ("started", asset):
            os.kill(os.getpid(), signal.SIGKILL)

    run_plan(plan_of(out, Smoke(ALONE)), 1, lambda _: 1.0, listen)
