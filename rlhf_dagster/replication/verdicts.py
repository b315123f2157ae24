"""How a claim is judged: by the whole 95% interval of each of its criteria, with one rule for all claims."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from rlhf_dagster.common.intervals import Rate, mean_interval
from rlhf_dagster.replication.base import Criterion, Measured

CriterionOutcome = Literal["holds", "fails", "open"]
ClaimVerdict = Literal["reproduced", "not reproduced", "not decided"]


CLEAR_PREFERENCE = 0.6
"""Share of prompts from which on a preference is as clear as the papers have theirs."""
CLEAR_GOLD = 0.25
"""Difference of gold scores that is as clear: about an eighth of the deviation of SFT's scores."""


def judge(criteria: Sequence[Criterion]) -> ClaimVerdict:
    """The verdict on a claim that stands or falls with ``criteria``.

    Reproduced where every criterion holds, not reproduced where at least one fails, and not decided otherwise; see
    :func:`outcome_of_criterion`. Raises ValueError where there is no criterion, under which every claim would stand.
    """
    if not criteria:
        raise ValueError("a claim without a criterion cannot be judged")
    outcomes = set(map(outcome_of_criterion, criteria))
    if "fails" in outcomes:
        return "not reproduced"
    return "not decided" if "open" in outcomes else "reproduced"


def outcome_of_criterion(criterion: Criterion) -> CriterionOutcome:
    """``holds`` where the whole interval lies on the side asked for, ``fails`` where it lies on the other one.

    With :attr:`Criterion.clear` it also fails where the whole interval falls short of that: no number of seeds puts the
    interval of an effect that is not there on either side. An interval that does neither, or an end of which is not
    known (infinite or NaN), leaves the criterion open.
    """
    if not (math.isfinite(criterion.low) and math.isfinite(criterion.high)):
        return "open"
    short = criterion.bound if criterion.clear is None else criterion.clear
    if criterion.side == "above":
        wanted, unwanted = criterion.low > criterion.bound, criterion.high < short
    else:
        wanted, unwanted = criterion.high < criterion.bound, criterion.low > short
    return "holds" if wanted else "fails" if unwanted else "open"


def must_exceed(
    sentence: str, rate: Rate, bound: float, *, percent: bool = False, clear: float | None = None
) -> Criterion:
    """The criterion that ``rate`` lies above ``bound``; ``sentence`` says what that means."""
    return Criterion(sentence, rate.value, rate.low, rate.high, bound, "above", rate.n, percent, clear)


def must_be_preferred(sentence: str, rate: Rate) -> Criterion:
    """The criterion that ``rate``, a share of prompts with ties as halves, is a preference."""
    return must_exceed(sentence, rate, 0.5, percent=True, clear=CLEAR_PREFERENCE)


def must_stay_below(sentence: str, rate: Rate, bound: float, *, percent: bool = False) -> Criterion:
    """The criterion that ``rate`` lies below ``bound``."""
    return Criterion(sentence, rate.value, rate.low, rate.high, bound, "below", rate.n, percent)


def criterion_of(record: Mapping[str, Any]) -> Criterion:
    """A criterion as `replication.json` keeps it, where a number that is not finite is None."""
    numbers = {name: math.nan if record[name] is None else record[name] for name in ("value", "low", "high")}
    return Criterion(**{**record, **numbers})


def across_seeds(figures: Sequence[Measured], *path: str | int) -> Rate:
    """The estimate that stands under ``path`` in the figures of each seed, as one.

    With one seed it is that seed's, whose interval is over prompts, labels or documents. With several it is the mean of
    their values with Student's t interval, and ``n`` counts seeds: what one seed's prompts say about it does not enter.
    Where a seed did not measure it the value is NaN, which decides nothing. Raises ValueError without a seed.
    """
    found = [_rate_at(measured, path) for measured in figures]
    return found[0] if len(found) == 1 else mean_interval([rate.value for rate in found])


def rate_of(figures: Mapping[str, Any] | None) -> Rate:
    """The inverse of :meth:`Rate.as_dict`: an end that is None is infinite, a value that is None (or no rate) NaN."""
    if figures is None or figures["value"] is None:
        return Rate(math.nan, -math.inf, math.inf, int(figures["n"]) if figures else 0)
    low, high = figures["low"], figures["high"]
    return Rate(
        float(figures["value"]),
        -math.inf if low is None else float(low),
        math.inf if high is None else float(high),
        int(figures["n"]),
    )


def _rate_at(measured: Measured, path: Sequence[str | int]) -> Rate:
    found: Any = measured
    for step in path:
        found = found[step]
    return rate_of(found)
