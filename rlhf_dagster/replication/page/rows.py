"""The rows of the page's tables, from what `replication.json` says."""

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rlhf_dagster.common.intervals import Rate
from rlhf_dagster.pages.report import MISSING, decimals, interval, percent
from rlhf_dagster.replication.base import Criterion, Measured
from rlhf_dagster.replication.verdicts import across_seeds, criterion_of, outcome_of_criterion

MOST_DIGITS = 5
_MARGIN = 0.08
"""Of a strip on either side of what it shows."""


def criterion_rows(criteria: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each criterion: its sentence, our value with interval, the bound, the outcome, and a strip."""
    return [_criterion_row(criterion_of(record)) for record in criteria]


def figure_rows(figures: Sequence[Measured]) -> list[dict[str, Any]]:
    """A row for each number that was measured: ``name``, ``value``, ``interval`` and ``n``.

    Estimates are those of all seeds together. Plain numbers are those of the first seed, since they say what was asked.
    """
    return [_figure_row(figures, path, found) for path, found in _leaves(figures[0])] if figures else []


def variant_rows(variants: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each loop, whichever seeds it was run with: ``settings`` are lines, ``minutes`` the mean over seeds.

    Settings that all loops have in common are left out (:func:`common_settings`).
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for variant in variants:
        by_name.setdefault(variant["name"], []).append(variant)
    shared = set(common_settings(variants))
    return [_variant_row(group, shared) for group in by_name.values()]


def common_settings(variants: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of the settings that each of several loops has; none where there is one loop, whose row has them all."""
    by_name = {variant["name"]: flat_settings(variant["settings"]) for variant in variants}
    first, *others = by_name.values() or [[]]
    return [line for line in first if all(line in other for other in others)] if others else []


def flat_settings(settings: Mapping[str, Any]) -> list[str]:
    """Nested settings as lines such as ``ppo.updates: 40``, values as in `loop.yaml`."""
    return [f"{'.'.join(path)}: {json.dumps(value, ensure_ascii=False)}" for path, value in _settings(settings)]


def _criterion_row(criterion: Criterion) -> dict[str, Any]:
    rate = Rate(criterion.value, criterion.low, criterion.high, criterion.n)
    digits = 1 if criterion.percent else digits_for(rate)
    value = percent if criterion.percent else decimals
    return {
        "sentence": criterion.sentence,
        "value": value(rate.as_dict()["value"], digits),
        "interval": interval(rate.as_dict(), digits, scale=100 if criterion.percent else 1),
        "bound": _bound(criterion),
        "outcome": outcome_of_criterion(criterion),
        "n": criterion.n,
        "strip": strip(criterion),
    }


def _bound(criterion: Criterion) -> str:
    """Such as ``above 50%``, or ``above 50%, clear from 60%``."""
    value = percent if criterion.percent else decimals
    bounds = [criterion.bound] if criterion.clear is None else [criterion.bound, criterion.clear]
    shown = [value(bound, _digits_of_bound(bound, criterion.percent)) for bound in bounds]
    return f"{criterion.side} {', clear from '.join(shown)}"


def strip(criterion: Criterion) -> dict[str, float] | None:
    """Where interval, value and bound lie on a line from 0 to 1 that shows all of them; None without an interval."""
    shown = {name: float(getattr(criterion, name)) for name in ("low", "value", "high", "bound")}
    if not all(map(math.isfinite, shown.values())):
        return None
    least, most = min(shown.values()), max(shown.values())
    width = (most - least) or 1.0
    return {name: _MARGIN + (1 - 2 * _MARGIN) * (one - least) / width for name, one in shown.items()}


def digits_for(rate: Rate) -> int:
    """How many digits behind the point show two figures of the interval's width."""
    width = rate.high - rate.low
    if not (math.isfinite(width) and width > 0):
        return 2
    return min(MOST_DIGITS, max(0, 1 - math.floor(math.log10(width))))


def _digits_of_bound(bound: float, as_percent: bool) -> int:
    """As many as it takes to say it."""
    scaled = bound * (100 if as_percent else 1)
    return next((digits for digits in range(MOST_DIGITS) if math.isclose(round(scaled, digits), scaled)), MOST_DIGITS)


def _figure_row(figures: Sequence[Measured], path: Sequence[str | int], found: Any) -> dict[str, Any]:
    name = " ".join(map(str, path)).replace("_", " ")
    if not _is_rate(found):
        return {"name": name, "value": _plain(found), "interval": MISSING, "n": MISSING}
    rate = across_seeds(figures, *path)
    digits, shown = digits_for(rate), rate.as_dict()
    return {
        "name": name,
        "value": decimals(shown["value"], digits),
        "interval": interval(shown, digits),
        "n": f"{rate.n:,}",
    }


def _leaves(found: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every estimate, plain value or list of plain values, with where it stands."""
    if _is_rate(found) or not isinstance(found, Mapping | list | tuple) or _is_plain_list(found):
        yield path, found
        return
    parts = found.items() if isinstance(found, Mapping) else enumerate(found)
    for step, part in parts:
        yield from _leaves(part, (*path, step))


def _is_rate(found: Any) -> bool:
    return isinstance(found, Mapping) and {"value", "low", "high", "n"} <= set(found)


def _is_plain_list(found: Any) -> bool:
    return isinstance(found, list | tuple) and not any(isinstance(one, Mapping | list | tuple) for one in found)


def _variant_row(group: Sequence[Mapping[str, Any]], shared: Collection[str]) -> dict[str, Any]:
    first, seconds = group[0], [sum(variant["seconds"].values()) for variant in group]
    return {
        "name": first["name"],
        "task": first["task"],
        "rounds": first["rounds"],
        "until": first["until"],
        "settings": [line for line in flat_settings(first["settings"]) if line not in shared],
        "minutes": sum(seconds) / len(seconds) / 60,
    }


def _settings(found: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in found.items():
        if isinstance(value, Mapping) and value:
            yield from _settings(value, (*path, str(name)))
        else:
            yield (*path, str(name)), value


def _plain(value: Any) -> str:
    """A number as people write it."""
    if value is None:
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return str(value)
