"""A claim of two tiny loops, of which one begins as the other does: what the engine is tested with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from loops import SMALL

from rlhf_dagster.config.base import overlaid
from rlhf_dagster.replication.base import Criterion, Measured, Probe, Results, Size, Variant

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
ALONE = replace(FREE, forks=None, after="")
"""The same loop, made from its beginning."""


class Smoke:
    """Says nothing about anything."""

    name = "C0"
    title = "Two loops run"
    source = "nobody"
    paper = "No figure."

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
