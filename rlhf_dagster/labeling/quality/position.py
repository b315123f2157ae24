"""Whether annotators prefer the response shown first, as far as the order that they saw is known."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from rlhf_dagster.common.intervals import share_with_interval


def first_position(labels: pd.DataFrame) -> dict[str, Any] | None:
    """How often the response shown first was chosen, and what that is by ``chance`` (the mean of 1 / K).

    Of ``labels`` (columns of LABELS, with ranks) counted are those with a single best response, shown at a known
    place. None without any.
    """
    known = labels[labels["chosen_position"].notna()]
    found = share_with_interval(int((known["chosen_position"] == 0).sum()), len(known))
    return found and found | {"chance": float((1 / known["ranks"].map(len)).mean())}


def shown_order(label: Mapping[str, Any], comparison: Mapping[str, Any]) -> Sequence[int] | None:
    """The indices of the responses in the order in which a label's annotator saw them; None where it is not known."""
    own = label.get("display_order")
    if own is None or isinstance(own, float):  # null in the table: as the comparison says
        own = comparison["display_order"]
    return own if len(own) else None
