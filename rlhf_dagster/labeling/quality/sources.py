"""What is known of labels whose file does not say who gave them."""

from typing import Any

import pandas as pd

from rlhf_dagster.labeling.quality.position import first_position
from rlhf_dagster.records.machines import by_source
from rlhf_dagster.records.outcome import best


def source_figures(judged: pd.DataFrame) -> list[dict[str, Any]]:
    """Figures of each source, by name; ``judged`` has the columns of LABELS, of usable labels.

    ``labels`` and, of these, ``ties`` (several best responses); ``first_position``, as of people, or None where no
    order is known. Who agrees with whom, and with themselves, cannot be told.
    """
    found = judged[by_source(judged["annotator"])]
    return [_figures(str(name), given) for name, given in found.groupby("annotator", sort=True)]


def _figures(name: str, given: pd.DataFrame) -> dict[str, Any]:
    ties = int((given["ranks"].map(lambda ranks: len(best(ranks))) > 1).sum())
    return {"annotator": name, "labels": len(given), "ties": ties, "first_position": first_position(given)}
