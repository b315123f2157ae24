"""What labels do not say, so that figures are known of a part of them or not at all."""

import pandas as pd

from rlhf_dagster.records.machines import by_source

_ANNOTATOR, _ORDER, _TIME = "who gave it", "in which order the responses were shown", "how long it took"
_NEEDS = {
    _ANNOTATOR: ("agreement", "agreement_with_ties", "alpha", "consistency", "competence"),
    _ORDER: ("first_position",),
    _TIME: ("median_seconds",),
}
"""What a label may not say, and the figures that need it."""


def not_known(submitted: pd.DataFrame, judged: pd.DataFrame) -> dict[str, str]:
    """By figure, how many labels do not say what it needs; without the figures that all labels can be counted for.

    Both tables have the columns of LABELS: ``submitted`` labels, and of these the usable ones that were ``judged`` for
    their outcome.
    """
    missing = {
        _ANNOTATOR: (int(by_source(judged["annotator"]).sum()), len(judged)),
        _ORDER: (_without_order(judged), len(judged)),
        _TIME: (int(submitted["seconds"].isna().sum()), len(submitted)),
    }
    told = {what: _sentence(what, *counts) for what, counts in missing.items() if counts[0]}
    return {figure: told[what] for what, figures in _NEEDS.items() if what in told for figure in figures}


def _sentence(what: str, missing: int, labels: int) -> str:
    """Of how many labels something is not known, for people."""
    if missing == labels:
        return f"not known: no label says {what}"
    return f"not known of {missing:,} of {labels:,} labels, which do not say {what}"


def _without_order(judged: pd.DataFrame) -> int:
    """Labels that say outright that their order is not known; those of older tables were shown as the comparison is."""
    if "display_order" not in judged:
        return 0
    orders = judged["display_order"]
    return int(orders.map(lambda order: order is not None and not isinstance(order, float) and len(order) == 0).sum())
