"""How a batch is divided among the processes that train together."""

import math

from rlhf_dagster.config.training import ComputeSettings


def own_rows(rows: int, compute: ComputeSettings) -> int:
    """The most rows of a batch that any one rank gets."""
    return math.ceil(rows / compute.processes)
