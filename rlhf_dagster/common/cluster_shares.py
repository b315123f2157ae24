"""Shares of observations that come in clusters and are not independent inside one, from sums over the clusters."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import share_with_interval, wilson_of_effective_size

SUMS = ("clusters", "so", "n", "so_so", "so_n", "n_n")


def cluster_sums(so: pd.Series, n: pd.Series) -> pd.DataFrame:
    """What each cluster adds to the :data:`SUMS`: something is so in ``so`` of its ``n`` observations."""
    values = (n > 0, so, n, so * so, so * n, n * n)
    return pd.DataFrame({name: value.astype("float64") for name, value in zip(SUMS, values, strict=True)})


def share_from_sums(sums: Mapping[Any, float]) -> dict[str, Any] | None:
    """The share of all observations with a 95% interval, from the :data:`SUMS` of their clusters; None without any.

    The interval is Wilson's for the effective number of observations (Korn and Graubard 1998), n over the design
    effect: how much more the share varies from cluster to cluster than if all observations were independent (the
    linearised variance of a ratio; Cochran 1977, section 6.4). It is taken as at least 1. Where nothing varies, and so
    nothing is known of it, every cluster counts as if it repeated one observation (Kish).
    """
    so, n = int(sums["so"]), int(sums["n"])
    if n == 0 or sums["n_n"] == n:
        return share_with_interval(so, n)
    share, clusters = so / n, sums["clusters"]
    squares = sums["so_so"] - 2 * share * sums["so_n"] + share * share * sums["n_n"]
    if so in (0, n) or clusters < 2 or squares <= 0:
        return wilson_of_effective_size(so, n, n * n / sums["n_n"]).as_dict()
    effect = clusters / (clusters - 1) * squares / (n * share * (1 - share))
    return wilson_of_effective_size(so, n, n / max(1.0, effect)).as_dict()
