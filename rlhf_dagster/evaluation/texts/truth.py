"""How much of what is important responses say, and how much that is not so, by a task that knows the facts."""

from collections.abc import Sequence

from rlhf_dagster.common.intervals import UNMEASURED, Rate, mean_count, mean_of_shares, wilson
from rlhf_dagster.tasks.base import Truthfulness


def truth_figures(found: Sequence[Truthfulness]) -> dict[str, Rate]:
    """Figures of responses, of each of which the facts are counted; raises ValueError where there is none.

    - ``covered``: mean share of the key facts that a response says, with its 95% interval; of responses to prompts
      without key facts there is none.
    - ``false_facts``: mean number of false facts in a response, with its 95% interval.
    - ``truthful``: share of responses without a false fact, with its 95% Wilson interval.
    """
    covered = [one.covered / one.key_facts for one in found if one.key_facts]
    return {
        "covered": mean_of_shares(covered) if covered else UNMEASURED,
        "false_facts": mean_count([one.false for one in found]),
        "truthful": wilson(sum(one.false == 0 for one in found), len(found)),
    }
