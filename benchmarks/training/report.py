"""Outcomes as a Markdown table, as JSON, and as lines while they come in."""

from dataclasses import asdict
from typing import Any

from benchmarks.training.runner import Measured, Outcome
from benchmarks.training.statistics import Estimate, estimate
from benchmarks.training.work import Episodes, ppo_update

HEADER = ["case", "ours", "peer", "times faster", "by CPU time", "bar (aim)", "peak memory", "peer's"]


def table(outcomes: list[Outcome]) -> str:
    """A row for each case: medians, with the smallest and largest repetition of the ratios in brackets."""
    rows = [HEADER, ["---"] * len(HEADER), *(row(outcome) for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def row(outcome: Outcome) -> list[str]:
    case = outcome.case
    if outcome.failure:
        return [case.title, f"failed: {outcome.failure}", *[""] * (len(HEADER) - 2)]
    bar = f"{case.bar:g} ({case.aim:g})" if case.aim != case.bar else f"{case.bar:g}"
    return [
        case.title,
        rate(outcome.ours, case.unit),
        f"{rate(outcome.peer, case.unit)} ({case.peer.label})",
        spread(outcome.ratio),
        spread(outcome.cpu_ratio),
        bar,
        memory(outcome.ours),
        memory(outcome.peer),
    ]


def rate(measured: Measured, unit: str) -> str:
    """Units per second, or seconds for each unit where that is the larger number."""
    per_second = estimate(measured.speeds).median
    return f"{per_second:,.0f} {unit}/s" if per_second >= 10 else f"{1 / per_second:.3g} s/{unit.removesuffix('s')}"


def spread(value: Estimate) -> str:
    return f"{value.median:.2f} [{value.low:.2f}, {value.high:.2f}]"


def memory(measured: Measured) -> str:
    return f"{max(measured.peak_bytes) / 2**30:.2f} GiB"


def as_json(outcomes: list[Outcome], machine: dict[str, Any]) -> dict[str, Any]:
    """Everything measured: each repetition, and each lap in it."""
    return {"machine": machine, "cases": [_case(outcome) for outcome in outcomes]}


def matmul_share(outcome: Outcome, kind: str) -> Estimate | None:
    """Operations of our PPO updates per CPU second over the rate of a matrix product; None for other cases.

    Adapters, whose frozen weights have no gradient, and a value model do other work than what is counted.
    ``kind`` is that of :func:`~benchmarks.training.machine.matmul_rates`.
    """
    case = outcome.case
    if case.job != "ppo" or case.ours.options or outcome.failure:
        return None
    names = ("batch_size", "prompt_tokens", "response_tokens", "epochs")
    operations = ppo_update(case.shape, Episodes(*(case.options[name] for name in names)))
    rates = [numbers["matmul_rates"][kind] for numbers in outcome.ours.numbers]
    return estimate([speed * operations / rate for speed, rate in zip(outcome.ours.cpu_speeds, rates, strict=True)])


def matmul_table(outcomes: list[Outcome]) -> str:
    """Part of the PPO updates' operations in what this machine can multiply; empty without such a case."""
    rows = []
    for outcome in outcomes:
        shares = [matmul_share(outcome, kind) for kind in ("torch", "fastest")]
        if all(shares):
            rows.append(f"| {outcome.case.title} | {' | '.join(f'{spread(one)}' for one in shares if one)} |")
    header = ["| part of the rate of a matrix product | by torch.mm | by the fastest |", "| --- | --- | --- |"]
    return "\n".join(header + rows) if rows else ""


def _case(outcome: Outcome) -> dict[str, Any]:
    content: dict[str, Any] = {
        "case": asdict(outcome.case),
        "failure": outcome.failure,
        "ours": asdict(outcome.ours),
        "peer": asdict(outcome.peer),
    }
    if not outcome.failure:
        content["times_faster"] = asdict(outcome.ratio)
        content["times_faster_by_cpu_time"] = asdict(outcome.cpu_ratio)
        content["memory_share"] = asdict(outcome.memory_share)
    return content
