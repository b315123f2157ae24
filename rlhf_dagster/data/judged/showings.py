"""How often an annotator was shown a comparison before, as far as a file tells."""

from rlhf_dagster.data.judged.spool import GivenJudgment
from rlhf_dagster.records.machines import is_source


class Showings:
    """Counts showings along a file.

    Where a file has no names for its comparisons, each line is a judgment of its own: the second by one annotator is
    about a repeat. Where it has names, the second line says what the annotator thinks now, unless it lists the
    responses in another order than before: then they were shown once more.
    """

    def __init__(self) -> None:
        self._orders: dict[int, list[int]] = {}

    def of(self, given: GivenJudgment) -> int:
        """0 for the first showing. Lines are to be given in their order."""
        line = given.line
        if not line.comparison:
            return 0 if is_source(line.annotator) else given.earlier
        if given.same == 1 or not line.order_known:
            return 0
        orders = self._orders.setdefault(hash((line.comparison, line.annotator)), [])
        order = hash((line.responses, line.policies))
        if order not in orders:
            orders.append(order)
        return orders.index(order)


def comparison_name(given: GivenJudgment) -> str:
    """What to call the comparison of a line: its name in the file, or a hash of what is compared.

    Where a file has no names and does not say who judged, lines of the same texts may be by different people: each is
    about a comparison of its own.
    """
    line = given.line
    apart = given.earlier and not line.comparison and is_source(line.annotator)
    return f"{given.name} {given.earlier + 1}" if apart else given.name
