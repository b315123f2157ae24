"""Shares with their intervals, as `label_quality` states them."""

from typing import Any


def rate(successes: int, n: int) -> dict[str, Any] | None:
    """A share with its 95% Wilson interval; None of nothing."""
    from rlhf_dagster.evaluation.intervals import wilson

    if n == 0:
        return None
    found = wilson(int(successes), int(n))
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def columns(found: dict[str, Any] | None, name: str, prefix: str | None = None) -> dict[str, Any]:
    """A rate as the columns ``name``, ``<prefix>_low`` and ``<prefix>_high``, null where there is none."""
    prefix = prefix or name
    values = found or {"value": None, "low": None, "high": None}
    return {name: values["value"], f"{prefix}_low": values["low"], f"{prefix}_high": values["high"]}
