"""Do both sides learn the same? Reward and KL of several seeds, on the embedded task and with the same settings."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.training.cases import OURS, TRL_PPO, Case, Side, ppo_options
from benchmarks.training.inputs import Shape, Texts
from benchmarks.training.runner import run_side
from benchmarks.training.task_inputs import PROMPT_TOKENS, RESPONSE_TOKENS, make_task_inputs

NAME = "learning"
LAST = 10
"""Updates that the numbers of the table are means of."""
SEPARATE = Side("ours, separate value model", OURS.module, options={"ours": {"value": "separate"}})
SIDES = [replace(OURS, label="ours, value head on the policy"), SEPARATE, TRL_PPO]
CASE = Case(
    name=NAME,
    title="Learning curves",
    job="ppo",
    shape=Shape(2, 64, 4, 1024, 64),
    texts=Texts(0, (0, 0), (0, 0)),
    options=ppo_options(PROMPT_TOKENS, RESPONSE_TOKENS, batch=64, updates=60)
    # The peer takes a distribution with suppressed tokens for another one in training, so that only padding is.
    | {"learning_rate": 1e-4, "kl_coef": 0.05, "suppressed": [0]},
    ours=OURS,
    peer=TRL_PPO,
    unit="updates",
    amount=1,
    peer_amount=1,
    bar=1,
    aim=1,
)


@dataclass(frozen=True)
class Curves:
    """Both numbers [seeds, updates] of one side."""

    label: str
    reward: np.ndarray
    kl: np.ndarray


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and the half-width of its 95% interval (Student's t), for each update or for one number."""

    mean: np.ndarray
    half: np.ndarray


def run_learning(seeds: int, cache: Path) -> list[Curves]:
    """The curves of all sides; the seeds of one are interleaved with those of the others."""
    inputs = make_task_inputs(cache / "inputs")
    results: dict[str, list[dict[str, Any]]] = {side.label: [] for side in SIDES}
    for seed in range(1, seeds + 1):
        for side in SIDES:
            seeded = replace(side, options=side.options | {"seed": seed})
            results[side.label].append(run_side(CASE, seeded, inputs, cache)["numbers"])
            print(f"{NAME}: {side.label}, seed {seed}", flush=True)
    return [
        Curves(label, *(np.array([run[key] for run in runs]) for key in ("reward", "kl")))
        for label, runs in results.items()
    ]


def interval(values: np.ndarray) -> Interval:
    """Over the first axis of ``values`` [seeds, ...]; raises ValueError with fewer than two seeds."""
    from scipy.stats import t

    seeds = len(values)
    if seeds < 2:
        raise ValueError("an interval over seeds needs two")
    return Interval(values.mean(axis=0), t.ppf(0.975, seeds - 1) * values.std(axis=0, ddof=1) / np.sqrt(seeds))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    """Share of updates at which the mean of each of two sides [seeds, updates] is in the interval of the other."""
    a, b = interval(one), interval(other)
    return float((np.abs(a.mean - b.mean) <= np.minimum(a.half, b.half)).mean())


def learning_table(curves: list[Curves]) -> str:
    """The last updates of each side, and its agreement with the peer's curves."""
    peer = curves[-1]
    rows = ["| | reward | KL, nats | agrees with the peer: reward | KL |", "| --- | --- | --- | --- | --- |"]
    for side in curves:
        last = [_text(interval(values[:, -LAST:].mean(axis=1))) for values in (side.reward, side.kl)]
        same = [
            "" if side is peer else f"{agreement(*pair):.0%} of updates"
            for pair in ((side.reward, peer.reward), (side.kl, peer.kl))
        ]
        rows.append(f"| {side.label} | {' | '.join(last + same)} |")
    return "\n".join(rows)


def _text(value: Interval) -> str:
    return f"{value.mean:.2f} ± {value.half:.2f}"


def write_learning(curves: list[Curves], folder: Path) -> None:
    """`learning.md`, `learning.json` and `learning.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "learning.md").write_text(learning_table(curves) + "\n", encoding="utf-8")
    content = [{"label": side.label, "reward": side.reward.tolist(), "kl": side.kl.tolist()} for side in curves]
    (folder / "learning.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
    draw_curves(curves, folder / "learning.png")


def draw_curves(curves: list[Curves], path: Path) -> None:
    """Means over seeds with their intervals, reward beside KL."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    for axes, key, name in zip(figure.subplots(1, 2), ("reward", "kl"), ("reward", "KL to SFT, nats"), strict=True):
        for side in curves:
            band = interval(getattr(side, key))
            updates = np.arange(1, len(band.mean) + 1)
            (line,) = axes.plot(updates, band.mean, label=side.label)
            axes.fill_between(updates, band.mean - band.half, band.mean + band.half, color=line.get_color(), alpha=0.2)
        axes.set_xlabel("update")
        axes.set_ylabel(name)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=130)
