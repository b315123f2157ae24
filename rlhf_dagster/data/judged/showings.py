"""How often an annotator was shown a comparison before, as far as a file tells."""

import numpy as np

from rlhf_dagster.data.judged.batch import GivenJudgment, JudgedBatch
from rlhf_dagster.records.machines import is_source


class Showings:
    """Counts showings along a file.

    Where a file has no names for its comparisons, each line is a judgment of its own: the second by one annotator is
    about a repeat. Where it has names, the second line says what the annotator thinks now, unless it lists the
    responses in another order than before: then they were shown once more.
    """

    def __init__(self) -> None:
        self._orders: dict[int, list[int]] = {}

    def of_lines(self, batch: JudgedBatch, lines: np.ndarray) -> dict[int, int]:
        """For those of some lines of a batch that are no first showing, how many there were before.

        ``lines`` are places in the batch, ascending; batches are to be given in their order.
        """
        again = lines[batch.same[lines] > 1].tolist()
        found = {place: self._of(batch.given(place)) for place in again}
        return {place: showing for place, showing in found.items() if showing}

    def _of(self, given: GivenJudgment) -> int:
        listing = given.listing
        if not listing.comparison:
            return 0 if is_source(given.annotator) else given.earlier
        if not given.decision.order_known:
            return 0
        orders = self._orders.setdefault(hash((listing.comparison, given.annotator)), [])
        order = hash((listing.responses, listing.policies))
        if order not in orders:
            orders.append(order)
        return orders.index(order)


def are_apart(batch: JudgedBatch) -> np.ndarray:
    """Whether each line is about a comparison of its own: (lines,) bool.

    Where a file has no names and does not say who judged, lines of the same texts may be by different people.
    """
    apart: np.ndarray = batch.by_source & ~batch.named
    return apart


def lines_apart(batch: JudgedBatch) -> np.ndarray:
    """For each line 0, or which of such comparisons of the same texts it is about: (lines,) int64."""
    return np.where(are_apart(batch), batch.earlier, 0)


def comparison_name(name: str, apart: int) -> str:
    """What to call a comparison that the file calls ``name``, or whose hash that is; ``apart`` as above."""
    return f"{name} {apart + 1}" if apart else name
